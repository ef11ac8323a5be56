//! Lines to a board: a serial port, or a TCP connection such as QEMU's.
//!
//! Errors name the port and say what to do. No panics.

use crate::{Error, Result};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Bytes both ways.
pub trait Line: Send {
    /// Sends all of the bytes.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Takes what comes within a time; nothing is no error.
    fn receive(&mut self, within: Duration, into: &mut VecDeque<u8>) -> io::Result<()>;
}

struct Tcp(TcpStream);

impl Line for Tcp {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn receive(&mut self, within: Duration, into: &mut VecDeque<u8>) -> io::Result<()> {
        self.0.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        take(&mut self.0, into)
    }
}

struct Serial(Box<dyn serialport::SerialPort>);

impl Line for Serial {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.set_timeout(Duration::from_secs(5))?;
        self.0.write_all(bytes)
    }

    fn receive(&mut self, within: Duration, into: &mut VecDeque<u8>) -> io::Result<()> {
        self.0.set_timeout(within.max(Duration::from_millis(1)))?;
        take(&mut self.0, into)
    }
}

/// One read, of which a timeout is an empty one.
fn take(from: &mut impl Read, into: &mut VecDeque<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match from.read(&mut buffer) {
        Ok(0) => Err(io::Error::new(ErrorKind::ConnectionAborted, "it was closed at the other end")),
        Ok(length) => {
            into.extend(&buffer[..length]);
            Ok(())
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Opens `tcp:HOST:PORT`, or a serial port at `baud`.
pub fn open(port: &str, baud: u32) -> Result<Box<dyn Line>> {
    let Some(address) = port.strip_prefix("tcp:") else {
        let opened = serialport::new(port, baud).timeout(Duration::from_millis(1)).open();
        let serial = opened.map_err(|e| {
            Error::usage(format!(
                "cannot open the serial port {port} ({e}): give one that exists and that you may use, or tcp:HOST:PORT"
            ))
        })?;
        return Ok(Box::new(Serial(serial)));
    };
    let addresses = address.to_socket_addrs().map_err(|e| {
        Error::usage(format!(
            "--port {port} is no address ({e}): write it as tcp:HOST:PORT, such as tcp:127.0.0.1:5555"
        ))
    })?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => {
                // A frame is small and is waited for.
                let _ = stream.set_nodelay(true);
                return Ok(Box::new(Tcp(stream)));
            }
            Err(e) => last = Some(e),
        }
    }
    let why = last.map_or("it has no address".to_string(), |e| e.to_string());
    Err(Error::failure(format!(
        "cannot connect to {port} ({why}): start the board there first, as `cargo xtask qemu --uart` does"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_not_there_are_named() {
        for (port, words) in [
            ("/nowhere/tty", vec!["/nowhere/tty", "tcp:HOST:PORT"]),
            ("tcp:127.0.0.1", vec!["tcp:HOST:PORT"]),
            ("tcp:127.0.0.1:1", vec!["tcp:127.0.0.1:1", "xtask qemu"]),
        ] {
            let Err(error) = open(port, 115_200) else { panic!("{port} was opened") };
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
    }
}
