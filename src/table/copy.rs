//! Copy-on-write: a file of which rows die is written again without them, so that no reader need know of deletion
//! vectors.

use roaring::RoaringBitmap;

use super::commit::{NewFile, Staged};
use super::files::DataFile;
use super::rewrite::{Input, Output, Rewriting};
use super::writer::add_action;
use super::{Table, TableError};

impl Table {
    /// Every file of which rows die goes, and its other rows are in a new one.
    pub(super) async fn stage_copies(&self, staged: &mut Staged) -> Result<(), TableError> {
        for (number, dying) in std::mem::take(&mut staged.deaths.rows) {
            if staged.deaths.files.contains(&number) {
                continue;
            }
            let file = &self.files[&number];
            let dead = &file.dead | &dying;
            staged.deaths.files.insert(number);
            if dead.len() < u64::from(file.rows) {
                let copy = self.copied(number, file, dead, staged).await?;
                staged.new_files.push(copy);
            }
        }
        for new in std::mem::take(&mut staged.new_files) {
            if new.file.dead.is_empty() {
                staged.new_files.push(new);
                continue;
            }
            // A chunk of which rows lose, or what was compacted while rows of it died.
            let name = new.file.add.path.clone();
            let dead = new.file.dead.clone();
            let copy = self.copied(u32::MAX, &new.file, dead, staged).await?;
            staged.leftover.push(name);
            staged.new_files.push(copy);
        }
        Ok(())
    }

    /// The rows of `file` that are not `dead`, in a file of their own.
    async fn copied(
        &self,
        number: u32,
        file: &DataFile,
        dead: RoaringBitmap,
        staged: &mut Staged,
    ) -> Result<NewFile, TableError> {
        let bucket = file.bucket.ok_or_else(|| self.rule("a file of several buckets cannot be copied on write"))?;
        let input = Input { number, add: file.add.clone(), rows: file.rows, dead };
        let rewriting = Rewriting { files: self.files(), schema: staged.schema.clone(), bucket, inputs: vec![input] };
        let Some(Output { name, size, stats, orders, rows, keys }) = rewriting.run().await?.output else {
            return Err(self.rule("a file that is copied has no live row"));
        };
        staged.rewritten.push(name.clone());
        let mut add = add_action(name, size, stats, bucket, orders, staged.at_ms);
        add.partition_values = file.add.partition_values.clone();
        Ok(NewFile { file: DataFile { add, bucket: Some(bucket), rows, dead: RoaringBitmap::new(), orders }, keys })
    }
}
