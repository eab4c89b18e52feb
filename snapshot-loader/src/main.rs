//! Dumps MySQL tables to Parquet.

fn main() {}
