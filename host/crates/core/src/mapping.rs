//! The rules of an event source mapping.
