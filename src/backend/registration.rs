//! Registration at compile time.

use super::Backend;

/// What [`register_backend!`](crate::register_backend) submits.
#[doc(hidden)]
#[derive(Debug)]
pub struct Registration(pub &'static dyn Backend);

inventory::collect!(Registration);

/// Registers a `'static` [`Backend`]; linking the crate that contains the call is all that it takes.
///
/// ```ignore
/// register_backend!(&MyBackend);
/// ```
#[macro_export]
macro_rules! register_backend {
    ($backend:expr) => {
        $crate::__inventory::submit! { $crate::backend::Registration($backend) }
    };
}

/// Every registered backend in the order of registration, which the linker decides: sort before use.
/// [`select::Registry`](crate::select) is the one reader.
pub fn registered() -> impl Iterator<Item = &'static dyn Backend> {
    inventory::iter::<Registration>().map(|registration| registration.0)
}
