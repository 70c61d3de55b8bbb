// What becomes the component: the handler, with the host's calls. Nothing here has to be changed.

import * as host from "shardmill:handler/host@1.0.0";
import handler from "./handler.js";

export const abi = () => handler.abi();
export const handle = (batch) => handler.handle(batch, host);
