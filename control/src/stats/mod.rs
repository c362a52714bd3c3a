//! The stats: the document, the endpoint that serves it, and the command that reads it.

pub mod document;
pub mod http;
pub mod read;
pub mod server;
mod table;
