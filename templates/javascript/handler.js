// A handler: counts views, and keeps each visitor's last page.

import { handler } from "./shardmill.js";

export function onClick(record, ctx) {
  const { page } = record.json();
  ctx.counterAdd("views");
  ctx.stateSet("last_page", page);
}

export default handler({ record: onClick });
