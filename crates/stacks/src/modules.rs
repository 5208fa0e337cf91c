//! The binary and libraries of a process, with their unwind tables.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Unwinder as _,
    UnwinderNative,
};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ReadCache, ReadRef, SegmentFlags};

use crate::{
    copy::{STACK_MAX, ThreadCopy},
    proc::{self, Mapping},
};

/// Limit of frames: more are a corrupt stack or a deep recursion.
const FRAMES_MAX: usize = 256;

/// A file that is mapped executable.
#[derive(Debug)]
pub(crate) struct Module {
    /// Without its folder.
    pub(crate) name: String,
    /// The address range of its code in the process.
    pub(crate) range: Range<u64>,
    /// The difference between an address in the process and in the file.
    pub(crate) bias: u64,
    /// The path at which it can be read.
    pub(crate) file: Option<PathBuf>,
    /// The file with its debug information, if separate.
    pub(crate) debug: Option<PathBuf>,
    /// Its memory, if it is not a file.
    pub(crate) memory: Vec<u8>,
}

/// All modules of a process.
pub(crate) struct Modules {
    list: Vec<Module>,
    unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
}

impl Modules {
    /// Loads the modules of a process from its mappings.
    pub(crate) fn of(pid: i32, maps: &[Mapping]) -> Self {
        let mut modules =
            Self { list: Vec::new(), unwinder: UnwinderNative::new(), cache: CacheNative::new() };
        for mapping in maps.iter().filter(|mapping| mapping.executable) {
            modules.add(pid, mapping);
        }
        modules
    }

    fn add(&mut self, pid: i32, mapping: &Mapping) {
        let Some(path) = &mapping.name else { return };
        let name = path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or(path).to_owned();
        let mut module = Module {
            name,
            range: mapping.range.clone(),
            bias: mapping.range.start.wrapping_sub(mapping.offset),
            file: proc::file_of(pid, mapping),
            debug: None,
            memory: Vec::new(),
        };
        let tables = if let Some(file) = module.file.as_deref().and_then(|path| File::open(path).ok()) {
            let cache = ReadCache::new(&file);
            read_tables(&cache, mapping.offset, |range| {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
                file.read_exact_at(&mut bytes, range.start).ok().map(|()| bytes)
            })
        } else if path == "[vdso]" {
            module.memory = memory(pid, &mapping.range);
            let memory = module.memory.as_slice();
            read_tables(memory, 0, |range| {
                memory
                    .get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
                    .map(<[u8]>::to_vec)
            })
        } else {
            None
        };
        if let Some(UnwindTables { sections, bias, debug }) = tables {
            module.bias = module.bias.wrapping_add(bias);
            module.debug = debug;
            self.unwinder.add_module(framehop::Module::new(
                module.name.clone(),
                module.range.clone(),
                module.bias,
                sections,
            ));
        }
        self.list.push(module);
    }

    /// The module of a code address, with its index.
    pub(crate) fn at(&self, address: u64) -> Option<(usize, &Module)> {
        self.list.iter().enumerate().find(|(_, module)| module.range.contains(&address))
    }

    /// Unwinds a copied stack: the frame addresses, innermost first, and why they end early, if they do.
    pub(crate) fn walk(&mut self, copied: &ThreadCopy) -> (Vec<FrameAddress>, Option<String>) {
        let base = copied.registers.sp;
        let mut out_of_copy = false;
        let mut read = |address: u64| {
            let word = usize::try_from(address.wrapping_sub(base)).ok().and_then(|at| {
                let bytes = copied.stack.get(at..)?.first_chunk::<8>()?;
                Some(u64::from_le_bytes(*bytes))
            });
            out_of_copy |= word.is_none();
            word.ok_or(())
        };
        let mut frames = self.unwinder.iter_frames(
            copied.registers.pc,
            copied.registers.native,
            &mut self.cache,
            &mut read,
        );
        let mut found = Vec::new();
        let ended = loop {
            match frames.next() {
                Ok(Some(_)) if found.len() == FRAMES_MAX => {
                    break Err(format!("only the innermost {FRAMES_MAX} frames"));
                }
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break Ok(()),
                Err(_) => break Err("the stack ends in code without unwind tables".to_owned()),
            }
        };
        let missing = match ended {
            Ok(()) => None,
            Err(_) if out_of_copy && copied.stack.is_empty() => {
                Some("the stack could not be read".to_owned())
            }
            Err(_) if out_of_copy && copied.stack.len() >= STACK_MAX => {
                Some(format!("only the innermost {} KiB of the stack were copied", STACK_MAX / 1024))
            }
            Err(_) if out_of_copy => Some("the stack refers to memory outside it".to_owned()),
            Err(why) => Some(why),
        };
        (found, missing)
    }
}

/// The unwind tables of a file.
struct UnwindTables {
    sections: ExplicitModuleSectionInfo<Vec<u8>>,
    /// The difference between file offsets and addresses in the segment that contains `offset`.
    bias: u64,
    debug: Option<PathBuf>,
}

fn read_tables<'a, R: ReadRef<'a>>(
    data: R,
    offset: u64,
    mut bytes: impl FnMut(Range<u64>) -> Option<Vec<u8>>,
) -> Option<UnwindTables> {
    let file = object::File::parse(data).ok()?;
    // A mapping begins at a page boundary, so that its first bytes may belong to the previous segment.
    let segment = file.segments().filter(is_executable).find(|segment| {
        let (at, size) = segment.file_range();
        offset < at + size
    })?;
    let bias = segment.file_range().0.wrapping_sub(segment.address());
    let mut section = |name: &str| {
        let section = file.section_by_name(name)?;
        let svma = section.address()..section.address() + section.size();
        let (at, size) = section.file_range()?;
        Some((svma, bytes(at..at + size)))
    };
    let mut sections = ExplicitModuleSectionInfo::default();
    if let Some((svma, data)) = section(".eh_frame") {
        (sections.eh_frame_svma, sections.eh_frame) = (Some(svma), data);
    }
    if let Some((svma, data)) = section(".eh_frame_hdr") {
        (sections.eh_frame_hdr_svma, sections.eh_frame_hdr) = (Some(svma), data);
    }
    if let Some((svma, data)) = section(".text") {
        (sections.text_svma, sections.text) = (Some(svma), data);
    }
    sections.got_svma = file.section_by_name(".got").map(|got| got.address()..got.address() + got.size());
    let debug = file
        .section_by_name(".debug_info")
        .is_none()
        .then(|| separate_debug_file(file.build_id().ok()??))
        .flatten();
    Some(UnwindTables { sections, bias, debug })
}

fn is_executable<'a>(segment: &impl object::ObjectSegment<'a>) -> bool {
    matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.contains(object::elf::PF_X))
}

/// The path of separate debug information, if installed.
fn separate_debug_file(build_id: &[u8]) -> Option<PathBuf> {
    let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (head, tail) = hex.split_at_checked(2)?;
    let path = Path::new("/usr/lib/debug/.build-id").join(head).join(format!("{tail}.debug"));
    path.is_file().then_some(path)
}

fn memory(pid: i32, range: &Range<u64>) -> Vec<u8> {
    let (Ok(base), Ok(len)) = (usize::try_from(range.start), usize::try_from(range.end - range.start)) else {
        return Vec::new();
    };
    let mut bytes = vec![0; len];
    read_memory(pid, base, &mut bytes)
        .map(|read| bytes.truncate(read))
        .map_or_else(|_| Vec::new(), |()| bytes)
}

/// Copies memory of a process, as far as it is mapped.
pub(crate) fn read_memory(pid: i32, base: usize, into: &mut [u8]) -> nix::Result<usize> {
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    let len = into.len();
    let mut local = [std::io::IoSliceMut::new(into)];
    process_vm_readv(nix::unistd::Pid::from_raw(pid), &mut local, &[RemoteIoVec { base, len }])
}
