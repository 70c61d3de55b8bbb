//! The host as a process, over HTTP: a module per topic.

mod access_log;
mod crash;
mod host;
mod poison;
