//! How weir talks to its source.
