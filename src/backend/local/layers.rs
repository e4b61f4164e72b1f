//! What a layer holds, and long chains of them: merged in the background, so that mounting stays fast.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::copy;
use super::protocol::Task;
use super::record;
use super::{Inner, LocalBackend};
use crate::sandbox::Result;

/// Longer chains are merged.
pub const LONG: usize = 64;
/// The kernel stops at 500; there is room for the upper and the image.
const TOO_LONG: usize = 400;

/// Beside a layer: another one that holds it and those below it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Merged {
    /// The merged layer.
    pub layer: String,
    /// The layers it stands for, top first.
    pub covers: Vec<String>,
}

/// Whether nothing was written to a tree of `upper`: its folder is empty and without attributes, with
/// mode and owner of the topmost one below. Its time alone is no reason to keep it.
pub fn is_unwritten(folder: &Path, upper: &str, layers: &[String], tree: &str) -> bool {
    let top = folder.join(upper).join(tree);
    let empty = fs::read_dir(&top).is_ok_and(|mut entries| entries.next().is_none());
    if !empty || copy::has_attributes(&top) {
        return false;
    }
    let look =
        |path: &Path| fs::metadata(path).map(|found| (found.mode(), found.uid(), found.gid()));
    let mut below = layers.iter().filter(|layer| *layer != upper);
    let below = below.find_map(|layer| look(&folder.join(layer).join(tree)).ok());
    below.is_none_or(|below| look(&top).is_ok_and(|top| top == below))
}

impl Inner {
    /// The chain with merged layers in place of what they stand for.
    pub(super) fn effective(&self, layers: &[String]) -> Result<Vec<String>> {
        if layers.len() <= LONG {
            return Ok(layers.to_vec());
        }
        for (place, layer) in layers.iter().enumerate() {
            if let Some(merged) = self.merged(layer)?
                && layers[place..].starts_with(&merged.covers)
            {
                let mut chain = layers[..place].to_vec();
                chain.push(merged.layer);
                chain.extend_from_slice(&layers[place + merged.covers.len()..]);
                return Ok(chain);
            }
        }
        Ok(layers.to_vec())
    }

    /// What a layer was merged into.
    pub(super) fn merged(&self, layer: &str) -> Result<Option<Merged>> {
        let merged = record::load::<Merged>(&self.store.layer(layer).join("meta.json"))?;
        Ok(merged.filter(|merged| self.store.layer(&merged.layer).is_dir()))
    }

    /// Whether the chain should be merged, and whether that can't wait.
    pub(super) fn is_long(&self, layers: &[String]) -> Result<(bool, bool)> {
        let length = self.effective(layers)?.len();
        Ok((length > LONG, length > TOO_LONG))
    }
}

impl LocalBackend {
    /// Merges a long chain: at once when the kernel would soon refuse it, else in the background.
    pub(super) async fn shorten(&self, layers: Vec<String>, image_layers: usize) -> Result<()> {
        let (long, urgent) = self.0.is_long(&layers)?;
        if urgent {
            return self.merge(layers, image_layers).await;
        }
        if long && self.0.held().merging.insert(layers[0].clone()) {
            let backend = self.clone();
            tokio::spawn(async move {
                let top = layers[0].clone();
                // A chain that stays long is slow, not wrong.
                let _ = backend.merge(layers, image_layers).await;
                backend.0.held().merging.remove(&top);
            });
        }
        Ok(())
    }

    async fn merge(&self, layers: Vec<String>, image_layers: usize) -> Result<()> {
        let inner = &self.0;
        let _referring = inner.store.referring().await?;
        let covers = layers[..layers.len() - image_layers].to_vec();
        let Some(top) = covers.first() else { return Ok(()) };
        // What was merged already is one step of the new merge.
        let mut sources = inner.effective(&layers)?;
        sources.truncate(sources.len() - image_layers);
        let id = super::store::random_id();
        let task = Task::Flatten {
            layers: sources.iter().map(|layer| inner.store.layer(layer)).collect(),
            to: inner.store.layer(&id),
        };
        inner.keeper().await?.perform(&task, &inner.mode).await?;
        let file = inner.store.layer(top).join("meta.json");
        record::save(&file, &Merged { layer: id, covers })
    }
}
