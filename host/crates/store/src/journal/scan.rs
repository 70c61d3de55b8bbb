//! Walks through frames.
