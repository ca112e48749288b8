//! The list of compiled-in plug-ins.

use crate::TelemetryPlugin;

/// One plug-in in the list. Made by [`crate::register!`].
pub struct Registration(pub &'static dyn TelemetryPlugin);

inventory::collect!(Registration);

/// Every plug-in that is linked in, by name. A crate whose items nobody names is not linked: write
/// `use my_exporters as _;` in the binary.
pub fn plugins() -> Vec<&'static dyn TelemetryPlugin> {
    let mut plugins: Vec<_> = inventory::iter::<Registration>.into_iter().map(|entry| entry.0).collect();
    plugins.sort_by_key(|plugin| plugin.name());
    plugins
}

/// Puts a plug-in into the list: `magicapi_plugin::register!(MyPlugin);` for a unit struct, or any constant
/// expression of a type that implements [`TelemetryPlugin`].
#[macro_export]
macro_rules! register {
    ($plugin:expr) => {
        $crate::inventory::submit! { $crate::Registration(&$plugin) }
    };
}
