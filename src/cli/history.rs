//! `vecscale history`: the audit trail of a running vecscale, or read from its journal while it does not run.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::args::{Connection, Output};
use super::client::{Client, shaped};
use super::shapes::History;
use super::status::pretty;
use super::{Failure, text};
use crate::model::{HistoryKind, Timestamp};
use crate::record::{HistoryQuery, Journal, SqliteJournal};

#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    connection: Connection,
    /// Read the journal in this folder instead of asking a running vecscale
    #[arg(long = "storage.path", value_name = "DIR", conflicts_with = "url")]
    storage_path: Option<PathBuf>,
    /// At most so many rows
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only rows older than the one with this id
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// Only rows of this kind: decision, operation, step, alert, setting, program
    #[arg(long, value_parser = kind)]
    kind: Option<HistoryKind>,
    /// Only rows since this instant, such as 2026-01-31T03:12:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
}

fn kind(text: &str) -> Result<HistoryKind, String> {
    let found = HistoryKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| format!("one of: {}", HistoryKind::ALL.map(HistoryKind::as_str).join(", ")))
}

fn since(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "a time as in 2026-01-31T03:12:00Z is needed".into())
}

pub async fn run(args: &HistoryArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let answer = match &args.storage_path {
        Some(storage) => {
            let journal = SqliteJournal::open_read_only(storage).map_err(|e| Failure::failed(e.to_string()))?;
            offline(args, &journal).await?
        }
        None => online(args).await?,
    };
    let said = match args.connection.output {
        Output::Json => pretty(&answer),
        Output::Text => words(&shaped(&answer)?),
    };
    out.write_all(said.as_bytes())?;
    Ok(())
}

async fn online(args: &HistoryArgs) -> Result<Value, Failure> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.before.map(|id| ("before", id.to_string())));
    query.extend(args.kind.map(|kind| ("kind", kind.as_str().to_string())));
    query.extend(args.since.map(|since| ("since", since.to_string())));
    Ok(Client::new(&args.connection)?.get("/autoscaling/history", &query).await?)
}

/// The same answer as the API's, from the journal itself.
async fn offline(args: &HistoryArgs, journal: &dyn Journal) -> Result<Value, Failure> {
    let limit = args.limit as usize;
    let query = HistoryQuery {
        pool: args.connection.pool.as_deref().map(Into::into),
        kind: args.kind,
        before: args.before,
        since: args.since,
        limit,
    };
    let items = journal.history(&query).await.map_err(|error| Failure::failed(error.to_string()))?;
    let next = items.last().filter(|_| items.len() == limit).map(|item| item.id);
    Ok(json!({"items": items, "next": next}))
}

/// Newest first, as it comes; one line a row.
fn words(history: &History) -> String {
    if history.items.is_empty() {
        return "nothing happened yet\n".into();
    }
    let row = |item: &super::shapes::HistoryItem| {
        vec![
            item.id.to_string(),
            text::instant(&item.at),
            item.kind.clone(),
            item.who.clone(),
            text::one_line(&item.summary),
        ]
    };
    let mut said = text::table(&history.items.iter().map(row).collect::<Vec<_>>());
    if history.next.as_ref().is_some_and(|next| !next.is_null())
        && let Some(last) = history.items.last()
    {
        said.push_str(&format!("older: --before {}\n", last.id));
    }
    said
}
