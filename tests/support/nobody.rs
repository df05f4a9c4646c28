//! Nobody drafts, but for those whom the sidecar's flags name.

use sidedraft::draft::Drafter;
use sidedraft::rollout::DrafterFactory;

/// Makes no drafters.
pub struct Nobody;

impl DrafterFactory for Nobody {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        Vec::new()
    }
}
