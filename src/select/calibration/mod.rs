//! Measured rates that overrule predictions: what this machine does instead of what its like usually do.

mod cache;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

pub use cache::{CacheError, CalibrationCache, Fingerprint};
use serde::{Deserialize, Serialize};

use super::{Policy, Registry};
use crate::{
    backend::{Backend, Device, Rates},
    hardware::Hardware,
};

/// What all measurements together may take at one start.
const BUDGET: Duration = Duration::from_millis(200);

/// And when the user asks for measuring: long enough for every tier of a slow machine.
const REFRESH_BUDGET: Duration = Duration::from_secs(2);

/// Measured [`Rates`] by backend and device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    measurements: Vec<Measurement>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measurement {
    backend: String,
    device: String,
    /// With the name, so that another card in the same slot is not taken for this one.
    device_name: String,
    /// `None`: asked, and nothing to measure with. Remembered, so as not to ask on every start.
    rates: Option<Rates>,
}

impl Measurement {
    fn is_of(&self, backend: &str, device: &Device) -> bool {
        self.backend == backend && self.device == device.id && self.device_name == device.name
    }
}

impl Calibration {
    /// No measurement: every prediction stands.
    pub fn new() -> Self {
        Self::default()
    }

    /// The measured rates of a backend on a device, if there are any.
    pub fn rates(&self, backend: &str, device: &Device) -> Option<&Rates> {
        self.find(backend, device)?.rates.as_ref()
    }

    /// Keeps what was measured, in place of what was known. Rates that are not [valid](Rates::is_valid) count as none.
    pub fn record(&mut self, backend: &str, device: &Device, rates: Option<Rates>) {
        self.measurements.retain(|measurement| !measurement.is_of(backend, device));
        self.measurements.push(Measurement {
            backend: backend.to_owned(),
            device: device.id.clone(),
            device_name: device.name.clone(),
            rates: rates.filter(Rates::is_valid),
        });
    }

    /// What the policy permits, this machine has, and nobody has measured yet.
    fn missing(&self, registry: &Registry, hardware: &Hardware, policy: &Policy) -> Vec<Target> {
        let permitted = registry.iter().filter(|backend| policy.permits(backend.id()));
        let targets = permitted.flat_map(|backend| {
            let devices = backend.devices(hardware).unwrap_or_default();
            devices.into_iter().map(move |device| Target { backend, device })
        });
        targets.filter(|target| self.find(target.backend.id(), &target.device).is_none()).collect()
    }

    /// Measures the targets, each within an equal share of what is left of `budget`; `elapsed` is the clock.
    ///
    /// When a backend overruns its share, the last ones may find nothing left: they keep their predictions, and their
    /// turn comes at the next start.
    fn measure(&mut self, targets: &[Target], budget: Duration, elapsed: impl Fn() -> Duration) {
        for (index, Target { backend, device }) in targets.iter().enumerate() {
            let left = budget.saturating_sub(elapsed());
            if left.is_zero() {
                return;
            }
            let share = left / u32::try_from(targets.len() - index).unwrap_or(u32::MAX);
            self.record(backend.id(), device, backend.measure(device, share));
        }
    }

    fn find(&self, backend: &str, device: &Device) -> Option<&Measurement> {
        self.measurements.iter().find(|measurement| measurement.is_of(backend, device))
    }
}

#[derive(Debug)]
struct Target {
    backend: &'static dyn Backend,
    device: Device,
}

/// Whether to measure before choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Calibrate {
    /// Predictions only (`0`).
    #[default]
    Off,
    /// Measure once and keep the result in the cache (`1`).
    Cached,
    /// Measure again and replace what the cache holds (`refresh`).
    Refresh,
}

impl fmt::Display for Calibrate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "0",
            Self::Cached => "1",
            Self::Refresh => "refresh",
        })
    }
}

impl FromStr for Calibrate {
    type Err = CalibrateError;

    fn from_str(text: &str) -> Result<Self, CalibrateError> {
        let all = [Self::Off, Self::Cached, Self::Refresh];
        all.into_iter().find(|mode| mode.to_string() == text).ok_or_else(|| CalibrateError(text.to_owned()))
    }
}

/// A text that is not a [`Calibrate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `0`, `1` or `refresh`")]
pub struct CalibrateError(String);

/// What is known of this machine's speed, measured now where it is not known yet. `None` until everything is measured.
///
/// A cache that cannot be read or written costs the time of measuring again, and a line in the log; it is no error.
pub(super) fn calibrate(
    mode: Calibrate,
    registry: &Registry,
    hardware: &Hardware,
    policy: &Policy,
    cache: Option<&CalibrationCache>,
) -> Option<Calibration> {
    let fingerprint = Fingerprint::of(hardware);
    let known = match (mode, cache) {
        (Calibrate::Off, _) => return None,
        (Calibrate::Cached, Some(cache)) => cache.load(&fingerprint).unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "measuring again: the calibration is unusable");
            None
        }),
        (Calibrate::Cached, None) | (Calibrate::Refresh, _) => None,
    };
    let mut calibration = known.unwrap_or_default();
    let targets = calibration.missing(registry, hardware, policy);
    if targets.is_empty() {
        return Some(calibration);
    }
    let budget = if mode == Calibrate::Refresh { REFRESH_BUDGET } else { BUDGET };
    let start = Instant::now();
    calibration.measure(&targets, budget, || start.elapsed());
    if let Some(cache) = cache
        && let Err(error) = cache.store(&fingerprint, &calibration)
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "the calibration was not kept");
    }
    // A measured speed and a predicted one do not compare: an estimate that is a third too high would beat every fact.
    let unmeasured = calibration.missing(registry, hardware, policy).len();
    if unmeasured > 0 {
        tracing::info!(
            unmeasured,
            "the time for measuring is over: predictions are used, the rest is measured next time"
        );
        return None;
    }
    Some(calibration)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, ops::ControlFlow, sync::Arc, sync::Mutex};

    use super::*;
    use crate::backend::{
        BackendModel, DeviceKind, Ineligible, LoadError, LoadRequest, ModelProfile, Score, Unavailable,
    };

    const RATES: Rates = Rates {
        quantized: 1e11,
        ternary: 1e11,
        float: 1e10,
        quantized_vector: 1e10,
        ternary_vector: 1e10,
        float_vector: 1e10,
        bandwidth: 1e10,
    };

    /// Measures `RATES` and notes the time that it was given.
    #[derive(Debug, Default)]
    struct Fake {
        budgets: Mutex<Vec<Duration>>,
    }

    impl Backend for Fake {
        fn id(&self) -> &'static str {
            "fake"
        }
        fn summary(&self) -> String {
            "a fake".into()
        }
        fn devices(&self, _: &Hardware) -> Result<Vec<Device>, Unavailable> {
            Ok(vec![device("one"), device("two")])
        }
        fn score(&self, _: &Device, _: &Hardware, _: &ModelProfile) -> Result<Score, Ineligible> {
            Ok(Score { prompt: 1.0, decode: 1.0 })
        }
        fn load(
            &self,
            _: &Device,
            _: &LoadRequest<'_>,
            _: &mut dyn FnMut(f32) -> ControlFlow<()>,
        ) -> Result<Arc<dyn BackendModel>, LoadError> {
            Err(LoadError::Cancelled)
        }
        fn measure(&self, _: &Device, budget: Duration) -> Option<Rates> {
            self.budgets.lock().unwrap().push(budget);
            Some(RATES)
        }
    }

    fn device(id: &str) -> Device {
        Device { id: id.into(), name: format!("device {id}"), kind: DeviceKind::Cpu, memory: None }
    }

    fn targets(fake: &'static Fake, count: usize) -> Vec<Target> {
        (0..count).map(|index| Target { backend: fake, device: device(&index.to_string()) }).collect()
    }

    fn fake() -> &'static Fake {
        Box::leak(Box::default())
    }

    #[test]
    fn the_budget_is_shared_equally() {
        let fake = fake();
        let mut calibration = Calibration::new();
        calibration.measure(&targets(fake, 4), BUDGET, || Duration::ZERO);
        // The clock stands still: each gets its part of the whole among those that are left.
        let milliseconds: Vec<_> = fake.budgets.lock().unwrap().iter().map(Duration::as_millis).collect();
        assert_eq!(milliseconds, [50, 66, 100, 200]);
        assert_eq!(calibration.rates("fake", &device("3")), Some(&RATES));
    }

    #[test]
    fn who_comes_after_the_budget_is_not_measured() {
        let fake = fake();
        let mut calibration = Calibration::new();
        // Each look at the clock is 150 ms later: the second backend gets 50 ms, the third nothing.
        let looks = Cell::new(0u64);
        let clock = || Duration::from_millis(150 * looks.replace(looks.get() + 1));
        calibration.measure(&targets(fake, 3), BUDGET, clock);
        assert!(calibration.rates("fake", &device("1")).is_some());
        assert!(calibration.rates("fake", &device("2")).is_none());
        assert_eq!(fake.budgets.lock().unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_measured_is_remembered_as_such() {
        let mut calibration = Calibration::new();
        calibration.record("fake", &device("one"), None);
        assert!(calibration.rates("fake", &device("one")).is_none());
        assert!(calibration.find("fake", &device("one")).is_some());
    }

    #[test]
    fn rates_that_make_no_sense_are_not_kept() {
        let mut calibration = Calibration::new();
        calibration.record("fake", &device("one"), Some(Rates { bandwidth: f64::NAN, ..RATES }));
        assert!(calibration.rates("fake", &device("one")).is_none());
    }

    #[test]
    fn a_measurement_belongs_to_its_device_and_backend() {
        let mut calibration = Calibration::new();
        calibration.record("fake", &device("one"), Some(RATES));
        assert!(calibration.rates("fake", &device("one")).is_some());
        assert!(calibration.rates("fake", &device("two")).is_none());
        assert!(calibration.rates("other", &device("one")).is_none());
        assert!(calibration.rates("fake", &Device { name: "another card".into(), ..device("one") }).is_none());
    }

    #[test]
    fn modes_read_back_what_they_write() {
        for mode in [Calibrate::Off, Calibrate::Cached, Calibrate::Refresh] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("yes".parse::<Calibrate>().is_err());
    }
}
