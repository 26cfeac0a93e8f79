//! Files, folders and their names on the in-memory disk.
//!
//! Each change of names (create, rename, link, remove) is one entry of a log: a set of (folder, name, new target)
//! that happens as a whole. [`Tree::sync_dir`] makes the changes that touch a folder safe; a crash keeps any subset
//! of the others, so that names may appear without those made before them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use rand::{Rng, RngCore};

use super::content::Content;

/// A file or folder, whatever its names.
pub(super) type Id = u64;

const ROOT: Id = 0;

#[derive(Clone)]
pub(super) enum Kind {
    File(Content),
    Folder(Folder),
}

#[derive(Clone, Default)]
pub(super) struct Folder {
    now: BTreeMap<OsString, Id>,
    safe: BTreeMap<OsString, Id>,
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    /// Names by which a reader sees it.
    links: u32,
    /// Open handles.
    handles: u32,
}

/// One change of names; `None` removes a name.
type Change = Vec<(Id, OsString, Option<Id>)>;

#[derive(Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    /// Changes not yet safe, in order.
    log: Vec<Change>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node { kind: Kind::Folder(Folder::default()), links: 1, handles: 0 };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, log: Vec::new() }
    }

    /// What stands at a path; the empty path is the root.
    pub(super) fn find(&self, path: &Path) -> io::Result<Id> {
        path.iter().try_fold(ROOT, |folder, name| {
            self.folder(folder)?.now.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    pub(super) fn file(&self, id: Id) -> io::Result<&Content> {
        match &self.node(id).kind {
            Kind::File(content) => Ok(content),
            Kind::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: Id) -> io::Result<&mut Content> {
        match &mut self.node_mut(id).kind {
            Kind::File(content) => Ok(content),
            Kind::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Names in a folder, in order, and whether each is a folder.
    pub(super) fn list(&self, id: Id) -> io::Result<Vec<(OsString, bool)>> {
        let folder = self.folder(id)?;
        let entry =
            |(name, id): (&OsString, &Id)| (name.clone(), matches!(self.node(*id).kind, Kind::Folder(_)));
        Ok(folder.now.iter().map(entry).collect())
    }

    pub(super) fn create(&mut self, path: &Path, kind: Kind) -> io::Result<Id> {
        let (folder, name) = self.place(path)?;
        if self.folder(folder)?.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node { kind, links: 0, handles: 0 });
        self.change(vec![(folder, name, Some(id))]);
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_folder, from_name) = self.place(from)?;
        let id = self.find(from)?;
        let (to_folder, to_name) = self.place(to)?;
        let is_folder = matches!(self.node(id).kind, Kind::Folder(_));
        if is_folder && to.starts_with(from) && to != from {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(&there) = self.folder(to_folder)?.now.get(&to_name) {
            if there == id {
                return Ok(());
            }
            match (&self.node(there).kind, is_folder) {
                (Kind::File(_), true) => return Err(io::ErrorKind::NotADirectory.into()),
                (Kind::Folder(_), false) => return Err(io::ErrorKind::IsADirectory.into()),
                (Kind::Folder(f), true) if !f.now.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        self.change(vec![(from_folder, from_name, None), (to_folder, to_name, Some(id))]);
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        if matches!(self.node(id).kind, Kind::Folder(_)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (folder, name) = self.place(to)?;
        if self.folder(folder)?.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(vec![(folder, name, Some(id))]);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        self.file(self.find(path)?)?;
        self.change(vec![(folder, name, None)]);
        Ok(())
    }

    /// Name by name from the bottom, as the system does: a crash may leave any part of it.
    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        let id = self.find(path)?;
        for (inner, is_folder) in self.list(id)? {
            let inner = path.join(inner);
            if is_folder { self.remove_dir(&inner)? } else { self.remove_file(&inner)? }
        }
        self.change(vec![(folder, name, None)]);
        Ok(())
    }

    /// Makes the names in a folder safe, with whatever earlier change touched the same names.
    pub(super) fn sync_dir(&mut self, id: Id) -> io::Result<()> {
        self.folder(id)?;
        let chosen = self.log.iter().map(|change| change.iter().any(|(folder, ..)| *folder == id)).collect();
        for change in self.take_with_earlier(chosen) {
            self.apply_safely(change);
        }
        self.collect();
        Ok(())
    }

    pub(super) fn crash(&mut self, rng: &mut dyn RngCore) {
        let keep = if rng.random() { 1.0 } else { rng.random::<f64>() };
        let chosen = self.log.iter().map(|_| rng.random_bool(keep)).collect();
        for change in self.take_with_earlier(chosen) {
            self.apply_safely(change);
        }
        self.log.clear();
        for node in self.nodes.values_mut() {
            (node.links, node.handles) = (0, 0);
            match &mut node.kind {
                Kind::File(content) => content.crash(rng),
                Kind::Folder(folder) => folder.now = folder.safe.clone(),
            }
        }
        // Only what hangs on the root is there: a folder whose own name was lost takes its files with it.
        let mut waiting = vec![ROOT];
        while let Some(id) = waiting.pop() {
            let node = self.node_mut(id);
            node.links += 1;
            if let (1, Kind::Folder(folder)) = (node.links, &node.kind) {
                waiting.extend(folder.now.values());
            }
        }
        self.nodes.retain(|_, node| node.links > 0);
    }

    /// Room taken by whatever a reader could still reach, in pages.
    pub(super) fn used_pages(&self) -> u64 {
        let used = |node: &Node| match &node.kind {
            Kind::File(content) if node.links > 0 || node.handles > 0 => content.used_pages(),
            _ => 0,
        };
        self.nodes.values().map(used).sum()
    }

    pub(super) fn opened(&mut self, id: Id) {
        self.node_mut(id).handles += 1;
    }

    pub(super) fn closed(&mut self, id: Id) {
        self.node_mut(id).handles -= 1;
    }

    /// Every handle is gone: its process is.
    pub(super) fn close_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.handles = 0;
        }
    }

    /// The folder that shall hold the last part of a path.
    fn place(&self, path: &Path) -> io::Result<(Id, OsString)> {
        let name: &OsStr = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.folder(folder)?;
        Ok((folder, name.to_owned()))
    }

    /// Does a change for readers, and remembers it until it is safe.
    fn change(&mut self, change: Change) {
        for (folder, name, target) in &change {
            let names = &mut self.folder_mut(*folder).now;
            let before = match target {
                Some(id) => names.insert(name.clone(), *id),
                None => names.remove(name),
            };
            if let Some(id) = target {
                self.node_mut(*id).links += 1;
            }
            if let Some(id) = before {
                self.node_mut(id).links -= 1;
            }
        }
        self.log.push(change);
    }

    /// Takes the chosen changes out of the log, with those before them that touched the same names: a file that was
    /// renamed twice never stands under two of its names.
    fn take_with_earlier(&mut self, mut chosen: Vec<bool>) -> Vec<Change> {
        let mut names: BTreeSet<(Id, OsString)> = BTreeSet::new();
        for (change, chosen) in self.log.iter().zip(&mut chosen).rev() {
            let touched = || change.iter().map(|(folder, name, _)| (*folder, name.clone()));
            if *chosen || touched().any(|name| names.contains(&name)) {
                *chosen = true;
                names.extend(touched());
            }
        }
        let mut chosen = chosen.into_iter();
        self.log.extract_if(.., |_| chosen.next().expect("one verdict a change")).collect()
    }

    fn apply_safely(&mut self, change: Change) {
        for (folder, name, target) in change {
            let names = &mut self.folder_mut(folder).safe;
            match target {
                Some(id) => drop(names.insert(name, id)),
                None => drop(names.remove(&name)),
            }
        }
    }

    /// Forgets nodes that neither a reader nor a crash could bring back.
    fn collect(&mut self) {
        let mut wanted: Vec<Id> = self.log.iter().flatten().filter_map(|(_, _, target)| *target).collect();
        wanted.extend(self.log.iter().flatten().map(|(folder, _, _)| *folder));
        for node in self.nodes.values() {
            if let Kind::Folder(folder) = &node.kind {
                wanted.extend(folder.safe.values());
            }
        }
        wanted.sort_unstable();
        self.nodes.retain(|id, node| node.links > 0 || node.handles > 0 || wanted.binary_search(id).is_ok());
    }

    fn folder(&self, id: Id) -> io::Result<&Folder> {
        match &self.node(id).kind {
            Kind::Folder(folder) => Ok(folder),
            Kind::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn folder_mut(&mut self, id: Id) -> &mut Folder {
        match &mut self.node_mut(id).kind {
            Kind::Folder(folder) => folder,
            Kind::File(_) => unreachable!("names are only ever put into folders"),
        }
    }

    fn node(&self, id: Id) -> &Node {
        self.nodes.get(&id).expect("an id that a name or a handle holds has its node")
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("an id that a name or a handle holds has its node")
    }
}
