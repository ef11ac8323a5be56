//! Flash as `sequential-storage` sees it: read without ever being changed, or written with every write read back.
//!
//! That crate repairs what it finds damaged by erasing it, which loading must not do and writing has no need for, since
//! sectors are erased by the journal alone. So a [`View`] for reading pretends to erase, and one for writing refuses.

use crate::Fault;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use embedded_storage::nor_flash as blocking;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

/// Bytes that are compared at a time; a multiple of every word that `sequential-storage` supports.
const PIECE: usize = 64;

/// Flash with a driver that waits until the flash is done.
#[derive(Debug, Clone, Copy)]
pub struct Blocking<F>(pub F);

impl<F: ErrorType> ErrorType for Blocking<F> {
    type Error = F::Error;
}

impl<F: blocking::ReadNorFlash> ReadNorFlash for Blocking<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: blocking::NorFlash> NorFlash for Blocking<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.write(offset, bytes)
    }
}

/// Runs a future of blocking flash, which is ready when it is first asked.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// Flash under a queue.
pub(crate) struct View<'f, F> {
    pub flash: &'f mut F,
    pub writing: bool,
}

impl<F: ErrorType> ErrorType for View<'_, F> {
    type Error = Fault<F::Error>;
}

impl<F: ReadNorFlash> ReadNorFlash for View<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.flash.read(offset, bytes).await.map_err(Fault::Flash)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash> NorFlash for View<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, _: u32, _: u32) -> Result<(), Self::Error> {
        if self.writing { Err(Fault::Corrupted) } else { Ok(()) }
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        if !self.writing {
            return Ok(());
        }
        if !holds(self.flash, offset, bytes.len(), None).await? {
            return Err(Fault::NotErased);
        }
        self.flash.write(offset, bytes).await.map_err(Fault::Flash)?;
        if holds(self.flash, offset, bytes.len(), Some(bytes)).await? { Ok(()) } else { Err(Fault::Differs) }
    }
}

/// Erases a sector and looks whether it is.
pub(crate) async fn erase_sector<F: NorFlash>(flash: &mut F, start: u32) -> Result<(), Fault<F::Error>> {
    flash.erase(start, start + F::ERASE_SIZE as u32).await.map_err(Fault::Flash)?;
    if holds(flash, start, F::ERASE_SIZE, None).await? { Ok(()) } else { Err(Fault::NotErased) }
}

/// Whether so many bytes from `offset` on are these, or erased.
async fn holds<F: ReadNorFlash>(
    flash: &mut F,
    offset: u32,
    length: usize,
    expected: Option<&[u8]>,
) -> Result<bool, Fault<F::Error>> {
    let mut buffer = [0; PIECE];
    for start in (0..length).step_by(PIECE) {
        let Some(piece) = buffer.get_mut(..PIECE.min(length - start)) else { return Ok(false) };
        flash.read(offset + start as u32, piece).await.map_err(Fault::Flash)?;
        let same = match expected {
            Some(bytes) => bytes.get(start..).is_some_and(|bytes| bytes.starts_with(piece)),
            None => piece.iter().all(|byte| *byte == 0xff),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
