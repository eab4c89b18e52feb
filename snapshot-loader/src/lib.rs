//! Bulk read of MySQL tables into Arrow batches.
