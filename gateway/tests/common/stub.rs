//! A server of the native protocol that adds the features of a row, and otherwise does what a test tells it to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use disrust_protocol::{ErrorCode, HELLO_REQUEST_BYTES, HelloRequest, REQUEST_HEADER_BYTES, ServerHello};

/// What it does with requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Behaviour {
    /// Answers them with their sums.
    Sums,
    /// Answers them with an error.
    Error(ErrorCode),
    /// Does not answer them, and not until this changes.
    Silent,
    /// Closes the connection.
    Closes,
    /// Answers what is none.
    Garbage,
}

/// See the module. It ends with the test.
#[derive(Clone)]
pub struct Stub {
    address: SocketAddr,
    told: Arc<(Mutex<Told>, Condvar)>,
}

struct Told {
    behaviour: Behaviour,
    features: u32,
    outputs: u32,
    version: u64,
    open: Vec<TcpStream>,
    requests: usize,
}

impl Stub {
    /// A server of the model `sum`, of so many features.
    pub fn start(features: u32, outputs: u32) -> Stub {
        Stub::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), features, outputs)
    }

    pub fn start_at(address: SocketAddr, features: u32, outputs: u32) -> Stub {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let told = Told { behaviour: Behaviour::Sums, features, outputs, version: 0, open: Vec::new(), requests: 0 };
        let stub = Stub { address, told: Arc::new((Mutex::new(told), Condvar::new())) };
        let serving = stub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serving.lock().open.push(stream.try_clone().expect("a descriptor"));
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        stub
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, requests that are not answered yet included.
    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
        self.told.1.notify_all();
    }

    /// From now on its model is another one.
    pub fn set_version(&self, version: u64) {
        self.lock().version = version;
    }

    /// Closes all of its connections.
    pub fn hang_up(&self) {
        for stream in std::mem::take(&mut self.lock().open) {
            // It may have ended before.
            let _ended = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Requests that it has received.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.0.lock().expect("nobody panics while holding it")
    }

    fn shape(&self) -> (usize, usize) {
        let told = self.lock();
        (told.features as usize, told.outputs as usize)
    }

    /// Until either side closes.
    fn serve(&self, mut stream: TcpStream) {
        // The gateway may end a connection at any time.
        while self.serve_one(&mut stream).is_ok() {}
        let _ended = stream.shutdown(std::net::Shutdown::Both);
    }

    fn serve_one(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut header = [0; REQUEST_HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let (features, outputs) = self.shape();
        let mut hello = [0; HELLO_REQUEST_BYTES];
        hello[..REQUEST_HEADER_BYTES].copy_from_slice(&header);
        let is_hello = HelloRequest::from_bytes(hello).is_some();
        if is_hello {
            stream.read_exact(&mut hello[REQUEST_HEADER_BYTES..])?;
            let mut answer = Vec::new();
            let model_version = self.lock().version;
            let hello = ServerHello {
                feature_dim: features as u32,
                outputs: outputs as u32,
                max_vectors: 64,
                model_version,
                model_name: "sum",
            };
            answer.extend_from_slice(&written(hello));
            return stream.write_all(&answer);
        }
        let count = u32::from_le_bytes(header) as usize;
        assert!((1..=64).contains(&count), "a request of {count} rows");
        let mut body = vec![0; count * features * 4];
        stream.read_exact(&mut body)?;
        self.lock().requests += 1;
        let told = self.lock();
        let told = self.told.1.wait_while(told, |told| told.behaviour == Behaviour::Silent).expect("nobody panics");
        let behaviour = told.behaviour.clone();
        drop(told);
        match behaviour {
            Behaviour::Sums => {
                let numbers: Vec<f32> = body.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
                let mut answer = vec![count as u8];
                for row in numbers.chunks(features) {
                    let sum = row.iter().copied().reduce(|sum, feature| sum + feature).expect("a feature");
                    // Each output is told from the others.
                    for output in 0..outputs {
                        answer.extend_from_slice(&(sum + output as f32).to_le_bytes());
                    }
                }
                stream.write_all(&answer)
            }
            Behaviour::Error(code) => stream.write_all(&code.answer()),
            Behaviour::Garbage => stream.write_all(&[200; 64]),
            Behaviour::Closes | Behaviour::Silent => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

fn written(hello: ServerHello<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}
