//! Tables as the source describes them, with the keys that the configuration gives them.

use std::sync::Arc;

use weir_model::{ColumnType, Gtid, GtidSet, TableId, TableSchema};
use weir_mysql::{Conn, KeySource, MysqlError, SourceOptions, TableDescription, catalogue, server};

use crate::capture::lane::LaneKey;
use crate::capture::request::{Catalogued, Described, RegisterError};
use crate::config::{Config, TableSettings};
use crate::error::Error;
use crate::limits::{ALTERATION_WAIT_MAX, EXECUTED_WAIT_MAX};

/// Asks the source about tables.
#[derive(Clone)]
pub struct SourceTables {
    pub source: SourceOptions,
    pub settings: Arc<dyn Fn(&TableId) -> TableSettings + Send + Sync>,
}

/// What became of a question about a table.
pub enum Asked {
    /// With the key that it is mirrored by; what the lake gets of its columns; and as capture reads its rows, if the binlog does
    /// not describe them.
    Found(Box<TableDescription>, Box<TableSchema>, Option<Box<Catalogued>>),
    Gone,
    /// It cannot be mirrored; says why and the way out.
    Refused(String),
}

/// The table with the key that it is mirrored by. For commands: who sits and waits is told at once.
///
/// # Errors
/// Of kind [`crate::error::Kind::Config`] if the source has no such table; else when it cannot be asked, or the table cannot
/// be mirrored.
pub async fn described(config: &Config, table: &TableId) -> Result<TableDescription, Error> {
    let settings = config.clone();
    let settings = Arc::new(move |table: &TableId| settings.table_settings(table));
    let tables = SourceTables { source: config.source_options()?, settings };
    match tables.ask(table).await {
        Ok(Asked::Found(description, ..)) => Ok(*description),
        Ok(Asked::Gone) => Err(Error::config(format!("the source has no table {table}"))),
        Ok(Asked::Refused(why)) => Err(Error::failed(why).at(table.to_string())),
        Err(error) => {
            Err(Error::failed("the source cannot be asked about the table").at(table.to_string()).because(error))
        }
    }
}

/// `description` with what the source has executed behind it. The catalogue may show a statement before it counts as executed: one
/// that is at its end by now is waited for.
async fn catalogued(connection: &mut Conn, description: TableDescription) -> Result<Catalogued, MysqlError> {
    server::wait_for_alteration(connection, description.table(), ALTERATION_WAIT_MAX).await?;
    Ok(Catalogued { executed: server::executed_gtids(connection).await?, description })
}

impl SourceTables {
    /// The table with the key that it is mirrored by.
    ///
    /// # Errors
    /// When asking again may help.
    pub async fn ask(&self, table: &TableId) -> Result<Asked, RegisterError> {
        let (description, catalogued) = match self.description_for_capture(table).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Asked::Gone),
            Err(error) if error.is_retryable() => return Err(RegisterError(error.to_string())),
            Err(error) => return Ok(Asked::Refused(error.to_string())),
        };
        Ok(match self.admit(description) {
            Ok((description, lake)) => Asked::Found(Box::new(description), Box::new(lake), catalogued.map(Box::new)),
            Err(why) => Asked::Refused(why),
        })
    }

    /// The table as it is mirrored at this moment, and what the source had executed behind that.
    pub async fn describe(&self, table: &TableId) -> Result<Described, RegisterError> {
        let asked = async {
            let mut connection = weir_mysql::connect(&self.source).await?;
            let Some(description) = catalogue::describe(&mut connection, table).await? else { return Ok(None) };
            Ok(Some((description, server::executed_gtids(&mut connection).await?)))
        };
        match asked.await {
            Ok(Some((description, executed))) => Ok(match self.admit(description) {
                Ok((description, lake)) => {
                    let key = LaneKey::of(&description);
                    Described::Found { schema: Arc::new(lake), key, executed }
                }
                Err(why) => Described::Refused(why),
            }),
            Ok(None) => Ok(Described::Gone),
            Err(error) if MysqlError::is_retryable(&error) => Err(RegisterError(error.to_string())),
            Err(error) => Ok(Described::Refused(error.to_string())),
        }
    }

    /// The table as the catalogue describes it, and what the source had executed behind that; `None` if it is gone, and why
    /// if it cannot be mirrored.
    pub async fn catalogued(&self, table: &TableId) -> Result<Result<Option<Catalogued>, String>, RegisterError> {
        let asked = async {
            let mut connection = weir_mysql::connect(&self.source).await?;
            match catalogue::describe(&mut connection, table).await? {
                Some(description) => catalogued(&mut connection, description).await.map(Some),
                None => Ok(None),
            }
        };
        match asked.await {
            Err(error) if error.is_retryable() => Err(RegisterError(error.to_string())),
            Err(error) => Ok(Err(error.to_string())),
            Ok(found) => Ok(Ok(found)),
        }
    }

    /// Waits until the source shows what a statement, which is transaction `gtid`, did to `tables`.
    pub async fn wait_until_visible(&self, gtid: &Gtid, tables: &[TableId]) -> Result<(), RegisterError> {
        let failed = |error: MysqlError| RegisterError(error.to_string());
        let mut connection = weir_mysql::connect(&self.source).await.map_err(failed)?;
        if gtid.is_of_log() {
            // It is in the binlog, which says nothing of what can be seen; but it holds on to its tables until it can.
            for table in tables {
                match server::wait_for_alteration(&mut connection, table, ALTERATION_WAIT_MAX).await {
                    // A table that is gone, or that we may not read, is told by whoever looks at it next.
                    Err(error) if error.is_retryable() => return Err(failed(error)),
                    Ok(()) | Err(_) => {}
                }
            }
            return Ok(());
        }
        let mut wanted = GtidSet::default();
        wanted.insert(gtid);
        match server::wait_for_executed(&mut connection, &wanted, EXECUTED_WAIT_MAX).await.map_err(failed)? {
            true => Ok(()),
            false => Err(RegisterError(format!("the source does not show {gtid}, which it has sent"))),
        }
    }

    /// The same, and what capture needs if the binlog may not describe the table.
    async fn description_for_capture(
        &self,
        table: &TableId,
    ) -> Result<Option<(TableDescription, Option<Catalogued>)>, MysqlError> {
        let mut connection = weir_mysql::connect(&self.source).await?;
        let Some(description) = catalogue::describe(&mut connection, table).await? else { return Ok(None) };
        let has_years = description.schema.columns.iter().any(|column| column.ty == ColumnType::Year);
        if server::describes_tables(&mut connection, has_years).await? {
            return Ok(Some((description, None)));
        }
        let catalogued = catalogued(&mut connection, description.clone()).await?;
        Ok(Some((description, Some(catalogued))))
    }

    /// What `weir` can do with the table as it is described, and what the lake gets of its columns.
    fn admit(&self, description: TableDescription) -> Result<(TableDescription, TableSchema), String> {
        let table = description.schema.table.clone();
        let settings = (self.settings)(&table);
        let mut description = match &settings.key {
            Some(key) => description.with_key(key).map_err(|error| error.to_string())?,
            None => description,
        };
        description.schema.layout = settings.layout;
        description.schema.check_partitions()?;
        if matches!(description.key_source, KeySource::None) && !description.schema.layout.is_append() {
            return Err(format!(
                "{table} has neither a primary key nor a unique key over NOT NULL columns, so its rows cannot be told \
                 apart. ALTER TABLE {} ADD PRIMARY KEY (...), or keep its changes with mode = \"append\", or leave it out with \"!{table}\" in [source] tables",
                table.quoted()
            ));
        }
        let rules = settings.rules.bind(&description.schema).map_err(|error| format!("{table}: {error}"))?;
        let lake = rules.map_or_else(|| description.schema.clone(), |rules| rules.schema().as_ref().clone());
        Ok((description, lake))
    }
}
