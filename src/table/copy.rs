//! Copy-on-write: a file of which rows die is written again without them, so that no reader need know of deletion
//! vectors; one that may hold several buckets as one a bucket, whoever's rows they are.

use roaring::RoaringBitmap;

use super::files::DataFile;
use super::partition::PartitionValues;
use super::rewrite::{Input, Rewriting, RowsOf};
use super::stage::Staged;
use super::{Table, TableError};

impl Table {
    /// Every file of which rows die goes, and its other rows are in new ones.
    pub(super) async fn stage_copies(&self, staged: &mut Staged) -> Result<(), TableError> {
        for (number, dying) in std::mem::take(&mut staged.deaths.rows) {
            if staged.deaths.files.contains(&number) {
                continue;
            }
            let file = &self.files[&number];
            let dead = &file.dead | &dying;
            staged.deaths.files.insert(number);
            if dead.len() < u64::from(file.rows) {
                self.stage_copy(number, file, dead, staged).await?;
            }
        }
        for new in std::mem::take(&mut staged.new_files) {
            if new.file.dead.is_empty() {
                staged.new_files.push(new);
                continue;
            }
            // A chunk of which rows lose, or what was compacted while rows of it died.
            let dead = new.file.dead.clone();
            self.stage_copy(u32::MAX, &new.file, dead, staged).await?;
            staged.leftover.push(new.file.add.path);
        }
        Ok(())
    }

    /// The rows of `file` that are not `dead` are in files of their own.
    async fn stage_copy(
        &self,
        number: u32,
        file: &DataFile,
        dead: RoaringBitmap,
        staged: &mut Staged,
    ) -> Result<(), TableError> {
        let rows_of = RowsOf::file(file.bucket, self.buckets().count);
        let input = Input { number, add: file.add.clone(), rows: file.rows, dead };
        let partition = PartitionValues::of_entry(&staged.schema.layout, &file.add);
        let (files, schema) = (self.files(), staged.schema.clone());
        let copied = Rewriting { files, schema, rows_of, partition, inputs: vec![input] }.run().await?;
        if copied.outputs.is_empty() {
            return Err(self.rule("a file that is copied has no live row"));
        }
        for output in &copied.outputs {
            staged.rewritten.push(output.path.clone());
            let copy = output.in_table(&staged.schema, &copied.partition, RoaringBitmap::new(), staged.at_ms);
            staged.new_files.push(copy);
        }
        Ok(())
    }
}
