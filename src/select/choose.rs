//! The choice on this machine: the registry of the program, calibration, log. Everything that is not pure.

use std::path::PathBuf;

use super::{
    Calibrate, CalibrationCache, Outcome, Policy, Registry, RegistryError, Request, SelectError, Selection,
    calibration::calibrate, select,
};
use crate::{
    backend::{ModelProfile, Workload},
    hardware::Hardware,
};

/// How to [`choose`]. [`Knobs::choose_options`](crate::knobs::Knobs::choose_options) fills it from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChooseOptions {
    /// What the user allows (default: everything).
    pub policy: Policy,
    /// The mix of prompt and generated tokens that counts (default: 512 and 128).
    pub workload: Workload,
    /// Whether to measure before choosing (default: no).
    pub calibrate: Calibrate,
    /// Where calibrations are kept; `None` measures every time.
    pub cache: Option<PathBuf>,
}

impl ChooseOptions {
    /// Sets what the user allows.
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the mix of prompt and generated tokens.
    pub fn with_workload(mut self, workload: Workload) -> Self {
        self.workload = workload;
        self
    }

    /// Sets whether to measure before choosing.
    pub fn with_calibrate(mut self, calibrate: Calibrate) -> Self {
        self.calibrate = calibrate;
        self
    }

    /// Sets where calibrations are kept.
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }
}

/// Chooses among the backends of this program how to run `model`, and logs the choice: the winner at info level, each
/// candidate at debug level.
///
/// # Errors
///
/// [`ChooseError`].
pub fn choose(hardware: &Hardware, model: &ModelProfile, options: &ChooseOptions) -> Result<Selection, ChooseError> {
    Ok(choose_from(Registry::global()?, hardware, model, options)?)
}

/// [`choose`] among the backends of any registry.
///
/// # Errors
///
/// [`SelectError`].
pub fn choose_from(
    registry: &Registry,
    hardware: &Hardware,
    model: &ModelProfile,
    options: &ChooseOptions,
) -> Result<Selection, SelectError> {
    let cache = options.cache.as_ref().map(CalibrationCache::new);
    let calibration = calibrate(options.calibrate, registry, hardware, &options.policy, cache.as_ref());
    let request = Request {
        model,
        policy: options.policy.clone(),
        workload: options.workload,
        calibration: calibration.as_ref(),
    };
    let selection = select(registry, hardware, &request)?;
    log(&selection);
    Ok(selection)
}

/// Why no backend was chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// The program was put together wrongly.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No backend may or can run the model.
    #[error(transparent)]
    Select(#[from] SelectError),
}

fn log(selection: &Selection) {
    let device = selection.device();
    tracing::info!(backend = selection.backend().id(), device = device.id, "{}", selection.explain());
    for candidate in selection.candidates() {
        let device = candidate.device.as_ref().map(|device| device.id.as_str());
        match &candidate.outcome {
            Outcome::Eligible(prediction) => tracing::debug!(
                backend = candidate.id,
                device,
                tokens_per_second = prediction.tokens_per_second,
                "can run the model"
            ),
            Outcome::Ineligible(reason) => {
                tracing::debug!(backend = candidate.id, device, "cannot run the model: {reason}");
            }
        }
    }
}
