//! The host as a process, over HTTP: a module per topic.
