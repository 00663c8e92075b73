//! Log lines on stderr, as logfmt or JSON. IO.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line is written (`--log.format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Logfmt,
    Json,
}

/// The least severe line that is written (`--log.level`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        }
    }
}

/// Starts logging for the whole program. A second call changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    // Libraries speak only when something is wrong: their debug lines would drown ours.
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(level.filter().min(LevelFilter::WARN))
        .with_target("vecscale", level.filter());
    let lines = tracing_subscriber::registry().with(filter);
    let _ = match format {
        LogFormat::Logfmt => {
            let layer = tracing_logfmt::builder().with_target(false).layer().with_writer(std::io::stderr);
            lines.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_target(false)
                .with_writer(std::io::stderr);
            lines.with(layer).try_init()
        }
    };
}
