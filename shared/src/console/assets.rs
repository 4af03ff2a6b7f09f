//! The stylesheet and the script. Their paths name their content, so browsers keep them for good.

use std::sync::LazyLock;

use crate::secret::content_hash;

/// A file that pages load.
#[derive(Debug)]
pub struct Asset {
    /// Its content.
    pub text: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    path: String,
}

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, text: &'static str) -> Self {
        let path = format!("{ROOT}{name}-{}.{extension}", content_hash(text));
        Self { text, media_type, path }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

const ROOT: &str = "/console/assets/";

/// The stylesheet.
pub static CONSOLE_CSS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "css", "text/css; charset=utf-8", include_str!("../../assets/console.css")));

/// The script.
pub static CONSOLE_JS: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript; charset=utf-8", include_str!("../../assets/console.js"))
});

/// The asset with this file name.
pub fn asset(file: &str) -> Option<&'static Asset> {
    [&*CONSOLE_CSS, &*CONSOLE_JS].into_iter().find(|asset| asset.path().strip_prefix(ROOT) == Some(file))
}
