//! `devices`: this machine, and what the compiled backends can do with it.

use std::fmt;

use clap::Args;
use gguf_loader::{
    backend::{Backend, Device, Unavailable},
    hardware::{Hardware, ThreadPlan},
    select::Registry,
};
use serde::Serialize;

use crate::{failure::Failure, output::Output};

/// Show this machine, and for each compiled backend whether it can run here or what is missing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader devices
  gguf-loader devices --json | jq -r '.backends[] | select(.supported) | .id'")]
pub(crate) struct Devices {}

impl Devices {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let hardware = Hardware::detect();
        let backends = Registry::global()?.iter().map(|backend| Row::of(backend, &hardware)).collect();
        output.result(&Report { threads: hardware.thread_plan(), hardware, backends })
    }
}

#[derive(Debug, Serialize)]
struct Report {
    hardware: Hardware,
    threads: ThreadPlan,
    backends: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    summary: String,
    supported: bool,
    devices: Vec<Device>,
    /// CPU features that the machine lacks.
    missing: Vec<String>,
    /// Why the backend cannot run here.
    reason: Option<String>,
}

impl Row {
    fn of(backend: &dyn Backend, hardware: &Hardware) -> Self {
        let (devices, missing, reason) = match backend.devices(hardware) {
            Ok(devices) if devices.is_empty() => (devices, Vec::new(), Some("found no device".to_owned())),
            Ok(devices) => (devices, Vec::new(), None),
            Err(unavailable) => {
                let reason = Some(unavailable.to_string());
                let missing = match unavailable {
                    Unavailable::MissingCpuFeatures(features) => features,
                    _ => Vec::new(),
                };
                (Vec::new(), missing, reason)
            }
        };
        let (id, summary) = (backend.id(), backend.summary());
        Self { id, summary, supported: reason.is_none(), devices, missing, reason }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}\n", self.hardware)?;
        if self.backends.is_empty() {
            return writeln!(formatter, "no backend is compiled into this program");
        }
        let id = self.backends.iter().map(|row| row.id.len()).max().unwrap_or_default();
        writeln!(formatter, "backends:")?;
        for row in &self.backends {
            match &row.reason {
                None => writeln!(formatter, "  {:id$}  yes  {}", row.id, row.summary)?,
                Some(reason) => writeln!(formatter, "  {:id$}  no   {reason} ({})", row.id, row.summary)?,
            }
        }
        Ok(())
    }
}
