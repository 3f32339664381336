//! The choice itself: pure, no clock, no environment, no log.

use std::{cmp::Ordering, collections::BTreeMap, fmt::Write as _};

use super::{Basis, Calibration, Candidate, Outcome, Policy, Prediction, Registry, Selection, UnknownBackend};
use crate::{
    backend::{Backend, Device, Ineligible, ModelProfile, Unavailable, Workload, roofline},
    hardware::Hardware,
};

/// What to choose a backend for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The model.
    pub model: &'a ModelProfile,
    /// What the user allows (default: everything).
    pub policy: Policy,
    /// The mix of prompt and generated tokens that counts (default: 512 and 128).
    pub workload: Workload,
    /// Measurements that replace the predictions of the backends that they cover (default: none).
    pub calibration: Option<&'a Calibration>,
}

impl<'a> Request<'a> {
    /// The fastest way to run `model`.
    pub fn new(model: &'a ModelProfile) -> Self {
        Self { model, policy: Policy::default(), workload: Workload::default(), calibration: None }
    }

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

    /// Sets the measurements that replace predictions.
    pub fn with_calibration(mut self, calibration: &'a Calibration) -> Self {
        self.calibration = Some(calibration);
        self
    }
}

/// Chooses how to run a model on `hardware`. Pure: the same input gives the same answer, in any order of registration.
///
/// Of the candidates that can run, the highest prediction for the workload wins; under [`Policy::Preference`] the
/// user's order comes before speed. Of equal ones the faster reader of prompts wins, then the faster generator, then the
/// lower id, and within a backend the lower device id.
///
/// # Errors
///
/// [`SelectError`]; nothing that the policy rules out is ever taken instead.
pub fn select(registry: &Registry, hardware: &Hardware, request: &Request<'_>) -> Result<Selection, SelectError> {
    if registry.is_empty() {
        return Err(SelectError::NoBackends);
    }
    check_names(registry, &request.policy)?;
    let mut candidates: Vec<_> =
        registry.iter().flat_map(|backend| candidates_of(backend, hardware, request)).collect();
    candidates.sort_by(|one, other| order(one, other, &request.policy));
    Selection::of_first(candidates, |id| registry.find(id).ok(), &request.policy, request.workload)
        .map_err(|candidates| SelectError::CannotRun { policy: request.policy.clone(), candidates })
}

/// Why no backend was chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The program has no backend at all: build it with a feature that brings one, e.g. `cpu-common`.
    #[error("no backend is compiled into this program; build it with the cargo feature `cpu-common`")]
    NoBackends,
    /// The policy names a backend that is not compiled in.
    #[error(transparent)]
    Unknown(#[from] UnknownBackend),
    /// Nothing that the policy permits can run the model here. The text gives the reasons.
    #[error("{}", describe_failure(policy, candidates))]
    CannotRun {
        /// The policy.
        policy: Policy,
        /// Every candidate with its reason, as in [`Selection::candidates`].
        candidates: Vec<Candidate>,
    },
}

/// A name that this program cannot know is a typing error, and must not pass for a choice. Denying a backend that the
/// library has, but this program was built without, is granted: it cannot run.
fn check_names(registry: &Registry, policy: &Policy) -> Result<(), UnknownBackend> {
    for name in policy.names() {
        match registry.find(name) {
            Err(unknown) if !(matches!(policy, Policy::Deny(_)) && unknown.known.is_some()) => return Err(unknown),
            _ => {}
        }
    }
    Ok(())
}

/// The backend on each of its devices, or once without one.
fn candidates_of(backend: &'static dyn Backend, hardware: &Hardware, request: &Request<'_>) -> Vec<Candidate> {
    let candidate = |device, outcome| Candidate { id: backend.id(), summary: backend.summary(), device, outcome };
    let excluded = |reason| vec![candidate(None, Outcome::Ineligible(reason))];
    // Before the devices: who denies a backend does not want its driver to be touched.
    if !request.policy.permits(backend.id()) {
        return excluded(Ineligible::Policy(format!("the policy `{}` rules it out", request.policy)));
    }
    match backend.devices(hardware) {
        Err(unavailable) => excluded(unavailable.into()),
        Ok(devices) if devices.is_empty() => excluded(Unavailable::NoDevice("found no device".to_owned()).into()),
        Ok(devices) => devices
            .into_iter()
            .map(|device| {
                let outcome = predict(backend, &device, hardware, request);
                candidate(Some(device), outcome.map_or_else(Outcome::Ineligible, Outcome::Eligible))
            })
            .collect(),
    }
}

fn predict(
    backend: &dyn Backend,
    device: &Device,
    hardware: &Hardware,
    request: &Request<'_>,
) -> Result<Prediction, Ineligible> {
    // The backend is asked in any case: only it knows whether it can run the model.
    let predicted = backend.score(device, hardware, request.model)?;
    let measured = request.calibration.and_then(|calibration| calibration.rates(backend.id(), device));
    let (score, basis) = match measured {
        Some(rates) => (roofline(request.model, rates), Basis::Measurement),
        None => (predicted, Basis::Estimate),
    };
    let tokens_per_second = score.tokens_per_second(request.workload);
    if !score.is_valid() || !tokens_per_second.is_finite() || tokens_per_second <= 0.0 {
        let text = format!("prompt {} and decode {} tokens/s", score.prompt, score.decode);
        return Err(Ineligible::Prediction(text));
    }
    Ok(Prediction { score, tokens_per_second, basis })
}

/// Best first; total, so that the answer does not depend on the order of the input.
fn order(one: &Candidate, other: &Candidate, policy: &Policy) -> Ordering {
    let by_merit = match (one.prediction(), other.prediction()) {
        (Some(one_prediction), Some(other_prediction)) => {
            let by_rank = policy.rank(one.id).cmp(&policy.rank(other.id));
            // Decoding is often bound by memory, which all tiers share: a workload without a prompt says nothing of them.
            let speeds = |prediction: &Prediction| {
                [prediction.tokens_per_second, prediction.score.prompt, prediction.score.decode]
            };
            let pairs = speeds(other_prediction).into_iter().zip(speeds(one_prediction));
            pairs.fold(by_rank, |order, (other, one)| order.then(other.total_cmp(&one)))
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    by_merit.then_with(|| one.id.cmp(other.id)).then_with(|| device_id(one).cmp(&device_id(other)))
}

fn device_id(candidate: &Candidate) -> Option<&str> {
    candidate.device.as_ref().map(|device| device.id.as_str())
}

/// Names who was permitted and why each cannot run; one reason that many share is written once.
fn describe_failure(policy: &Policy, candidates: &[Candidate]) -> String {
    let permitted = candidates.iter().filter(|candidate| policy.permits(candidate.id));
    let reasons = permitted.filter_map(|candidate| Some((candidate.id, candidate.ineligible()?.to_string())));
    let mut ids_by_reason = BTreeMap::<String, Vec<&str>>::new();
    for (id, reason) in reasons {
        ids_by_reason.entry(reason).or_default().push(id);
    }
    let mut text = match policy {
        Policy::Named(id) => format!("`{id}` cannot run the model here"),
        Policy::Automatic => "no backend can run the model here".to_owned(),
        Policy::Preference(_) | Policy::Deny(_) => format!("no backend that `{policy}` permits can run the model here"),
    };
    let several = !matches!(policy, Policy::Named(_));
    for (index, (reason, ids)) in ids_by_reason.iter().enumerate() {
        let separator = if index == 0 { ": " } else { "; " };
        let suffix = if several { format!(" ({})", ids.join(", ")) } else { String::new() };
        // Writing into a `String` does not fail.
        let _ = write!(text, "{separator}{reason}{suffix}");
    }
    text
}
