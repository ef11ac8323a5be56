//! Flash as the journal sees it: read without ever being changed, or written with every write read back.
//!
//! `sequential-storage` repairs what it finds damaged by erasing it, which loading must not do and writing has no need for,
//! since sectors are erased by the journal alone. So both views keep erasing to themselves: the [`Reader`] pretends, the
//! [`Writer`] refuses.

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

/// Reads; pretends to write and erase.
pub(crate) struct Reader<'f, F>(pub &'f mut F);

impl<F: ErrorType> ErrorType for Reader<'_, F> {
    type Error = F::Error;
}

impl<F: ReadNorFlash> ReadNorFlash for Reader<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.read(offset, bytes).await
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> NorFlash for Reader<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, _: u32, _: u32) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn write(&mut self, _: u32, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Writes where flash is erased and reads back; refuses to erase.
pub(crate) struct Writer<'f, F>(pub &'f mut F);

impl<F: ErrorType> ErrorType for Writer<'_, F> {
    type Error = Fault<F::Error>;
}

impl<F: ReadNorFlash> ReadNorFlash for Writer<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.read(offset, bytes).await.map_err(Fault::Flash)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> NorFlash for Writer<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, _: u32, _: u32) -> Result<(), Self::Error> {
        Err(Fault::Corrupted)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        if !holds(self.0, offset, bytes.len(), |_| Some(0xff)).await? {
            return Err(Fault::NotErased);
        }
        self.0.write(offset, bytes).await.map_err(Fault::Flash)?;
        match holds(self.0, offset, bytes.len(), |index| bytes.get(index).copied()).await? {
            true => Ok(()),
            false => Err(Fault::Differs),
        }
    }
}

/// Erases a sector and looks whether it is.
pub(crate) async fn erase_sector<F: NorFlash>(flash: &mut F, start: u32) -> Result<(), Fault<F::Error>> {
    flash.erase(start, start + F::ERASE_SIZE as u32).await.map_err(Fault::Flash)?;
    match holds(flash, start, F::ERASE_SIZE, |_| Some(0xff)).await? {
        true => Ok(()),
        false => Err(Fault::NotErased),
    }
}

/// Whether flash from `offset` on holds these bytes.
async fn holds<F: ReadNorFlash>(
    flash: &mut F,
    offset: u32,
    length: usize,
    expected: impl Fn(usize) -> Option<u8>,
) -> Result<bool, Fault<F::Error>> {
    let mut buffer = [0; PIECE];
    for start in (0..length).step_by(PIECE) {
        let Some(piece) = buffer.get_mut(..PIECE.min(length - start)) else { return Ok(false) };
        flash.read(offset + start as u32, piece).await.map_err(Fault::Flash)?;
        if !piece.iter().zip(start..).all(|(byte, index)| Some(*byte) == expected(index)) {
            return Ok(false);
        }
    }
    Ok(true)
}
