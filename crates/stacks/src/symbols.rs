//! Resolves addresses to functions, files and lines.

use std::{borrow::Cow, collections::HashMap};

use addr2line::Loader;
use framehop::FrameAddress;
use object::{Object as _, ObjectSymbol as _};

use crate::{
    StackFrame, ThreadStack,
    copy::ThreadCopy,
    modules::{Module, Modules},
    proc::Mapping,
    text,
};

/// Unwinds copied stacks and resolves their frames. Debug information is loaded once per dump.
pub(crate) struct Symbols {
    modules: Modules,
    /// By index of the module; `None` for those that cannot be read.
    loaders: HashMap<usize, Option<Loader>>,
    /// Resolved addresses: many idle threads have the same frames.
    known: HashMap<u64, Vec<StackFrame>>,
}

impl Symbols {
    pub(crate) fn of(pid: i32, maps: &[Mapping]) -> Self {
        Self { modules: Modules::of(pid, maps), loaders: HashMap::new(), known: HashMap::new() }
    }

    /// Fills in the frames of a thread.
    pub(crate) fn name(&mut self, thread: &mut ThreadStack, copied: &ThreadCopy) {
        let (addresses, missing) = self.modules.walk(copied);
        for address in addresses {
            thread.frames.extend(self.at(address));
        }
        thread.missing = missing;
    }

    fn at(&mut self, address: FrameAddress) -> Vec<StackFrame> {
        // A return address is that of the next instruction, which may belong to another line or function.
        let lookup = address.address_for_lookup();
        let known = self.known.get(&lookup).cloned();
        let mut frames = known.unwrap_or_else(|| {
            let found = self.find(lookup);
            self.known.insert(lookup, found.clone());
            found
        });
        for frame in &mut frames {
            frame.address = address.address();
        }
        frames
    }

    fn find(&mut self, address: u64) -> Vec<StackFrame> {
        let bare = |module: &str, function: Option<String>| StackFrame {
            address,
            module: module.to_owned(),
            function,
            file: None,
            line: None,
            inlined: false,
        };
        let Some((index, module)) = self.modules.at(address) else { return vec![bare("?", None)] };
        let probe = address.wrapping_sub(module.bias);
        let loader = self.loaders.entry(index).or_insert_with(|| {
            let path = module.debug.as_ref().or(module.file.as_ref())?;
            Loader::new(path).ok()
        });
        let Some(loader) = loader else { return vec![bare(&module.name, in_memory(module, probe))] };
        // Line tables have only unqualified function names; the symbol table has qualified ones, but only of functions
        // that were not inlined.
        let symbol = || loader.find_symbol(probe).map(|name| demangled(Cow::Borrowed(name)));
        let mut frames = inlined(loader, probe, &bare(&module.name, None));
        match frames.last_mut() {
            Some(outermost) if !outermost.function.as_deref().is_some_and(text::is_qualified) => {
                outermost.function = symbol().or(outermost.function.take());
            }
            Some(_) => {}
            None => frames.push(bare(&module.name, symbol())),
        }
        for frame in &mut frames {
            if let (Some(function), Some(file)) = (&frame.function, &frame.file) {
                frame.function = Some(text::qualify(function, file));
            }
        }
        frames
    }
}

/// The frames at an address, including inlined ones, innermost first.
fn inlined(loader: &Loader, probe: u64, bare: &StackFrame) -> Vec<StackFrame> {
    let mut frames = Vec::new();
    let Ok(mut found) = loader.find_frames(probe) else { return frames };
    while let Ok(Some(found)) = found.next() {
        let location = found.location.as_ref();
        frames.push(StackFrame {
            function: found
                .function
                .and_then(|function| function.raw_name().ok().map(|name| demangled(name))),
            file: location.and_then(|at| at.file).map(text::shorten_path),
            line: location.and_then(|at| at.line).filter(|line| *line > 0),
            inlined: true,
            ..bare.clone()
        });
    }
    if let Some(outermost) = frames.last_mut() {
        outermost.inlined = false;
    }
    frames
}

fn demangled(name: Cow<'_, str>) -> String {
    match rustc_demangle::try_demangle(&name) {
        Ok(name) => format!("{name:#}"),
        Err(_) => name.into_owned(),
    }
}

/// A symbol of a module that is only in memory: the vDSO.
fn in_memory(module: &Module, probe: u64) -> Option<String> {
    let file = object::File::parse(module.memory.as_slice()).ok()?;
    let symbol = file.dynamic_symbols().find(|symbol| {
        symbol.is_definition() && (symbol.address()..symbol.address() + symbol.size()).contains(&probe)
    })?;
    symbol.name().ok().map(str::to_owned)
}
