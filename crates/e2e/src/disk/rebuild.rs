//! The recorded folder as it may be after a cut of power.
//!
//! Durable are: data and length of a file as they were when a sync of it began that ended before the cut; names (created,
//! renamed, removed) likewise by a sync of their folder. Of everything else a part is kept: each write or none of it, or
//! some of its blocks of 512 bytes; each name or not, sometimes in their order as in a journal of the file system. So a
//! renamed file may be there without its data.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::Context as _;
use fastrand::Rng;

use super::record::{DiskRecord, DiskStep};

/// A disk writes so many bytes at once.
const BLOCK: usize = 512;

/// A file or a folder, whatever its name is.
type NodeId = usize;
/// A name in a folder.
type Slot = (NodeId, String);

#[derive(Default)]
struct Node {
    /// Indices of the writes and truncations of a file.
    steps: Vec<usize>,
    /// Steps before this index are durable: data of a file, names in a folder.
    durable_before: usize,
    is_folder: bool,
}

/// A change of names.
enum NameChange {
    Set(Slot, NodeId),
    Remove(Slot),
    Move(Slot, Slot, NodeId),
}

/// What a cut keeps of what is not durable.
enum Kept {
    Everything,
    ByChance(Rng),
}

/// The recorded folder up to one point: every file that existed, and each change with its index.
struct DiskHistory<'a> {
    record: &'a DiskRecord,
    nodes: Vec<Node>,
    changes: Vec<(usize, NameChange)>,
    /// The names as the program saw them at the end.
    names: HashMap<Slot, NodeId>,
}

/// Writes the folder as it may be after a cut before step `point`, into `target`, which does not exist.
pub(super) fn rebuild_after_cut(
    record: &DiskRecord,
    point: usize,
    seed: u64,
    target: &Path,
) -> anyhow::Result<()> {
    DiskHistory::read(record, point)?.write(Kept::ByChance(Rng::with_seed(seed)), target)
}

/// Writes the folder as the program saw it after its last step, into `target`, which does not exist.
pub(super) fn rebuild_everything(record: &DiskRecord, target: &Path) -> anyhow::Result<()> {
    DiskHistory::read(record, record.steps.len())?.write(Kept::Everything, target)
}

impl<'a> DiskHistory<'a> {
    const ROOT: NodeId = 0;

    fn read(record: &'a DiskRecord, point: usize) -> anyhow::Result<Self> {
        let root = Node { is_folder: true, ..Node::default() };
        let mut history = Self { record, nodes: vec![root], changes: Vec::new(), names: HashMap::new() };
        let mut syncs: HashMap<(u32, NodeId), usize> = HashMap::new();
        for (index, step) in record.steps[..point].iter().enumerate() {
            match step {
                DiskStep::SyncBegin { path, thread } => {
                    if let Some(node) = history.find(path) {
                        syncs.insert((*thread, node), index);
                    }
                }
                DiskStep::SyncEnd { path, thread } => {
                    let node = history.find(path);
                    if let Some((node, began)) = node.and_then(|n| Some((n, syncs.remove(&(*thread, n))?))) {
                        let durable = &mut history.nodes[node].durable_before;
                        *durable = began.max(*durable);
                    }
                }
                step => history.apply(index, step).with_context(|| format!("step {index}, {step:?}"))?,
            }
        }
        Ok(history)
    }

    fn apply(&mut self, index: usize, step: &DiskStep) -> anyhow::Result<()> {
        let change = match step {
            DiskStep::Write { path, .. } | DiskStep::Truncate { path, .. } => {
                // A file without a name is lost at the cut.
                if !path.ends_with(" (deleted)") {
                    let node = self.find(path).context("a file that was not created")?;
                    self.nodes[node].steps.push(index);
                }
                return Ok(());
            }
            DiskStep::CreateFile { path } | DiskStep::CreateFolder { path } => {
                let is_folder = matches!(step, DiskStep::CreateFolder { .. });
                self.nodes.push(Node { is_folder, ..Node::default() });
                NameChange::Set(self.slot(path)?, self.nodes.len() - 1)
            }
            DiskStep::Link { from, to } => {
                NameChange::Set(self.slot(to)?, self.find(from).context("no such file")?)
            }
            DiskStep::Unlink { path } => NameChange::Remove(self.slot(path)?),
            DiskStep::Rename { from, to } => {
                let node = self.find(from).context("no such file")?;
                NameChange::Move(self.slot(from)?, self.slot(to)?, node)
            }
            DiskStep::Send { .. } | DiskStep::SyncBegin { .. } | DiskStep::SyncEnd { .. } => return Ok(()),
        };
        rename(&mut self.names, &change);
        self.changes.push((index, change));
        Ok(())
    }

    fn find(&self, path: &str) -> Option<NodeId> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(Self::ROOT, |folder, name| self.names.get(&(folder, name.to_owned())).copied())
    }

    fn slot(&self, path: &str) -> anyhow::Result<Slot> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(folder).context("a folder that was not created")?, name.to_owned()))
    }

    fn write(&self, mut kept: Kept, target: &Path) -> anyhow::Result<()> {
        let names = self.names_after_cut(&mut kept);
        let mut folders: BTreeMap<NodeId, Vec<(&str, NodeId)>> = BTreeMap::new();
        for ((folder, name), node) in &names {
            folders.entry(*folder).or_default().push((name, *node));
        }
        // The order of a hash map is not that of the seed.
        folders.values_mut().for_each(|names| names.sort_unstable());
        self.write_folder(Self::ROOT, &folders, &mut kept, target)
    }

    fn write_folder(
        &self,
        folder: NodeId,
        folders: &BTreeMap<NodeId, Vec<(&str, NodeId)>>,
        kept: &mut Kept,
        target: &Path,
    ) -> anyhow::Result<()> {
        fs::create_dir(target)?;
        for (name, node) in folders.get(&folder).into_iter().flatten() {
            let target = target.join(name);
            if self.nodes[*node].is_folder {
                self.write_folder(*node, folders, kept, &target)?;
            } else {
                fs::write(target, self.content(&self.nodes[*node], kept))?;
            }
        }
        Ok(())
    }

    fn is_durable(&self, index: usize, change: &NameChange) -> bool {
        let durable = |slot: &Slot| index < self.nodes[slot.0].durable_before;
        match change {
            NameChange::Set(slot, _) | NameChange::Remove(slot) => durable(slot),
            NameChange::Move(from, to, _) => durable(from) || durable(to),
        }
    }

    fn names_after_cut(&self, kept: &mut Kept) -> HashMap<Slot, NodeId> {
        let mut names = HashMap::new();
        let last_durable = self
            .changes
            .iter()
            .rposition(|(index, change)| self.is_durable(*index, change))
            .map_or(0, |n| n + 1);
        let (in_order, until, chance) = match kept {
            Kept::Everything => (true, self.changes.len(), 1.0),
            Kept::ByChance(rng) => {
                (rng.bool(), rng.usize(last_durable..=self.changes.len()), [0.0, 0.5, 0.9][rng.usize(..3)])
            }
        };
        for (number, (index, change)) in self.changes.iter().enumerate() {
            let is_kept = match kept {
                _ if in_order => number < until,
                Kept::ByChance(rng) => rng.f64() < chance,
                Kept::Everything => true,
            };
            if is_kept || self.is_durable(*index, change) {
                rename(&mut names, change);
            }
        }
        names
    }

    fn content(&self, node: &Node, kept: &mut Kept) -> Vec<u8> {
        let mut content = Vec::new();
        let unsynced = node.steps.iter().filter(|index| **index >= node.durable_before).count();
        // Everything, nothing, some blocks, or what was written before some moment, whose last write is torn.
        let (chance, whole) = match kept {
            Kept::Everything => (1.0, usize::MAX),
            Kept::ByChance(rng) => match rng.u8(..6) {
                0 => (1.0, usize::MAX),
                1 => (0.0, 0),
                2 | 3 => ([0.1, 0.5, 0.9][rng.usize(..3)], 0),
                _ => (0.0, rng.usize(..=unsynced)),
            },
        };
        let mut number = 0;
        for index in &node.steps {
            let is_durable = *index < node.durable_before;
            number += usize::from(!is_durable);
            let chance = match number {
                _ if is_durable => 1.0,
                n if n <= whole => 1.0,
                n if n == whole + 1 && chance == 0.0 && whole > 0 => 0.5,
                _ => chance,
            };
            let mut is_kept = || match kept {
                Kept::ByChance(rng) if chance < 1.0 => rng.f64() < chance,
                _ => true,
            };
            match &self.record.steps[*index] {
                DiskStep::Write { offset, data, .. } => {
                    let at = usize::try_from(*offset).expect("a file of the test fits into memory");
                    write_blocks(&mut content, at, self.record.data(data), is_kept);
                }
                DiskStep::Truncate { length, .. } if is_kept() => {
                    content.resize(usize::try_from(*length).expect("a file of the test fits into memory"), 0);
                }
                _ => {}
            }
        }
        content
    }
}

fn rename(names: &mut HashMap<Slot, NodeId>, change: &NameChange) {
    match change {
        NameChange::Set(slot, node) => {
            names.insert(slot.clone(), *node);
        }
        NameChange::Remove(slot) => {
            names.remove(slot);
        }
        NameChange::Move(from, to, node) => {
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
    }
}

/// Writes those blocks of `data` that are kept. A block that is not kept leaves what was there, or zeros.
fn write_blocks(content: &mut Vec<u8>, at: usize, data: &[u8], mut is_kept: impl FnMut() -> bool) {
    let mut from = 0;
    while from < data.len() {
        let to = data.len().min(from + BLOCK - (at + from) % BLOCK);
        if is_kept() {
            if content.len() < at + to {
                content.resize(at + to, 0);
            }
            content[at + from..at + to].copy_from_slice(&data[from..to]);
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn path(name: &str) -> String {
        name.to_owned()
    }

    fn sync(name: &str) -> [DiskStep; 2] {
        [
            DiskStep::SyncBegin { path: path(name), thread: 1 },
            DiskStep::SyncEnd { path: path(name), thread: 1 },
        ]
    }

    /// Every content of the file `name` that 200 cuts at the end of these steps lead to; `None` where it has no name.
    fn outcomes(bytes: &[u8], steps: Vec<DiskStep>, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        let record = DiskRecord::new(bytes.to_vec(), steps);
        let scratch = tempfile::tempdir().unwrap();
        (0..200)
            .map(|seed| {
                let target = scratch.path().join(seed.to_string());
                rebuild_after_cut(&record, record.steps.len(), seed, &target).unwrap();
                fs::read(target.join(name)).ok()
            })
            .collect()
    }

    fn created_and_written(name: &str, data: std::ops::Range<usize>) -> Vec<DiskStep> {
        vec![DiskStep::CreateFile { path: path(name) }, DiskStep::Write { path: path(name), offset: 0, data }]
    }

    #[test]
    fn what_was_synced_is_there_whatever_the_seed() {
        let mut steps = created_and_written("a", 0..3);
        steps.extend(sync("a"));
        steps.extend(sync(""));
        assert_eq!(outcomes(b"one", steps, "a"), BTreeSet::from([Some(b"one".to_vec())]));
    }

    #[test]
    fn a_synced_file_may_have_no_name_and_a_name_no_data() {
        let mut steps = created_and_written("a", 0..3);
        steps.extend(sync("a"));
        assert_eq!(outcomes(b"one", steps, "a"), BTreeSet::from([None, Some(b"one".to_vec())]));
        let mut steps = created_and_written("a", 0..3);
        steps.extend(sync(""));
        assert_eq!(outcomes(b"one", steps, "a"), BTreeSet::from([Some(Vec::new()), Some(b"one".to_vec())]));
    }

    #[test]
    fn a_rename_that_was_not_synced_leaves_one_of_both_names() {
        let mut steps = created_and_written("a", 0..3);
        steps.extend(sync("a"));
        steps.extend(sync(""));
        steps.push(DiskStep::Rename { from: path("a"), to: path("b") });
        let both = [outcomes(b"one", steps.clone(), "a"), outcomes(b"one", steps, "b")];
        assert_eq!(both, [0, 1].map(|_| BTreeSet::from([None, Some(b"one".to_vec())])));
    }

    #[test]
    fn blocks_of_a_write_are_lost_one_by_one_and_a_sync_covers_only_what_was_written_before_it_began() {
        let mut steps = created_and_written("a", 0..4 * BLOCK);
        steps.insert(1, DiskStep::SyncBegin { path: path("a"), thread: 7 });
        steps.push(DiskStep::SyncEnd { path: path("a"), thread: 7 });
        steps.extend(sync(""));
        let found = outcomes(&[1; 4 * BLOCK], steps, "a");
        let torn =
            |content: &&Option<Vec<u8>>| content.as_ref().is_some_and(|c| c.contains(&0) && c.contains(&1));
        assert!(found.contains(&Some(Vec::new())) && found.contains(&Some(vec![1; 4 * BLOCK])));
        assert!(found.iter().filter(torn).count() > 3, "{}", found.len());
        for content in found.iter().flatten() {
            assert!(content.chunks(BLOCK).all(|block| block.iter().all(|byte| *byte == block[0])));
        }
    }

    #[test]
    fn a_folder_that_was_not_synced_takes_its_files_with_it() {
        let mut steps = vec![DiskStep::CreateFolder { path: path("sub") }];
        steps.extend(created_and_written("sub/a", 0..3));
        steps.extend(sync("sub/a"));
        steps.extend(sync("sub"));
        assert_eq!(outcomes(b"one", steps, "sub/a"), BTreeSet::from([None, Some(b"one".to_vec())]));
    }
}
