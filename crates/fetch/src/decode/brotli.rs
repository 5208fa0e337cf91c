//! Brotli (RFC 7932), with a count of the memory that its decoder has: the window grows with the document, the tables with
//! what the body asks for.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, SliceWrapperMut,
};
use compression_codecs::{
    DecodeV2,
    core::util::{PartialBuffer, WriteBuffer},
};

type State = BrotliState<CountedAllocator, CountedAllocator, CountedAllocator>;

/// Decodes one body; `allocated` always has its bytes in memory.
pub(super) struct CountedBrotli {
    state: Box<State>,
    allocator: CountedAllocator,
}

impl CountedBrotli {
    pub(super) fn new(allocated: &Arc<AtomicUsize>) -> Self {
        let allocator = CountedAllocator { allocated: Arc::clone(allocated) };
        Self { state: Box::new(allocator.state()), allocator }
    }

    fn run(
        &mut self,
        input: &mut PartialBuffer<&[u8]>,
        output: &mut WriteBuffer<'_>,
    ) -> io::Result<BrotliResult> {
        let (from, to) = (input.unwritten(), output.initialize_unwritten());
        let (mut used, mut made) = (0, 0);
        let result = BrotliDecompressStream(
            &mut from.len(),
            &mut used,
            from,
            &mut to.len(),
            &mut made,
            to,
            &mut 0,
            &mut self.state,
        );
        if matches!(result, BrotliResult::ResultFailure) {
            return Err(io::Error::other("brotli error"));
        }
        input.advance(used);
        output.advance(made);
        Ok(result)
    }
}

impl DecodeV2 for CountedBrotli {
    fn reinit(&mut self) -> io::Result<()> {
        *self.state = self.allocator.state();
        Ok(())
    }

    fn decode(&mut self, input: &mut PartialBuffer<&[u8]>, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        Ok(matches!(self.run(input, output)?, BrotliResult::ResultSuccess))
    }

    fn flush(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        let result = self.run(&mut PartialBuffer::new(&[]), output)?;
        Ok(!matches!(result, BrotliResult::NeedsMoreOutput))
    }

    fn finish(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<bool> {
        match self.run(&mut PartialBuffer::new(&[]), output)? {
            BrotliResult::NeedsMoreInput => Err(io::ErrorKind::UnexpectedEof.into()),
            result => Ok(matches!(result, BrotliResult::ResultSuccess)),
        }
    }
}

/// Counts what it allocates until that is dropped.
struct CountedAllocator {
    allocated: Arc<AtomicUsize>,
}

impl CountedAllocator {
    /// A decoder of streams without the windows of more than 16 MiB that the RFC does not have.
    fn state(&self) -> State {
        let another = || Self { allocated: Arc::clone(&self.allocated) };
        State::new_strict(another(), another(), another())
    }
}

impl<T: Clone + Default> Allocator<T> for CountedAllocator {
    type AllocatedMemory = CountedCells<T>;

    fn alloc_cell(&mut self, len: usize) -> CountedCells<T> {
        self.allocated.fetch_add(len * size_of::<T>(), Ordering::Relaxed);
        CountedCells { cells: vec![T::default(); len], allocated: Some(Arc::clone(&self.allocated)) }
    }

    fn free_cell(&mut self, _: CountedCells<T>) {}
}

struct CountedCells<T> {
    cells: Vec<T>,
    allocated: Option<Arc<AtomicUsize>>,
}

impl<T> Default for CountedCells<T> {
    fn default() -> Self {
        Self { cells: Vec::new(), allocated: None }
    }
}

impl<T> SliceWrapper<T> for CountedCells<T> {
    fn slice(&self) -> &[T] {
        &self.cells
    }
}

impl<T> SliceWrapperMut<T> for CountedCells<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.cells
    }
}

impl<T> Drop for CountedCells<T> {
    fn drop(&mut self) {
        if let Some(allocated) = &self.allocated {
            allocated.fetch_sub(self.cells.len() * size_of::<T>(), Ordering::Relaxed);
        }
    }
}
