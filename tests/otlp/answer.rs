//! What the receiver may be told to do to a request.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

/// An answer is given once the request has been read whole, and it is on record by then.
/// Not to be listening at all is `Receiver::kill` and `Receiver::start_refusing`.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Ok,
    /// An HTTP status, or over gRPC the code that OTLP has for it.
    Status(u16, Option<Duration>),
    /// So many times, then `Ok`.
    Times(u32, Box<Answer>),
    /// Never answered; the connection stays open.
    Hang,
    /// The connection ends with an RST.
    Reset,
    /// `Ok`, late.
    Slow(Duration),
    /// Success, and then what is no message.
    Garbage,
    PartialSuccess {
        rejected: i64,
    },
}

impl Answer {
    pub fn status(http: u16) -> Self {
        Answer::Status(http, None)
    }

    pub fn retry_after(http: u16, wait: Duration) -> Self {
        Answer::Status(http, Some(wait))
    }

    pub fn times(self, n: u32) -> Self {
        Answer::Times(n, Box::new(self))
    }

    /// This request's answer, leaving the next one's.
    pub fn take(&mut self) -> Answer {
        let Answer::Times(left, answer) = self else {
            return self.clone();
        };
        let taken = (**answer).clone();
        if *left == 0 {
            *self = Answer::Ok;
            return Answer::Ok;
        }
        *left -= 1;
        taken
    }

    /// Whether the sender may take what it sent for delivered.
    pub fn accepts(&self) -> bool {
        matches!(
            self,
            Answer::Ok | Answer::Slow(_) | Answer::PartialSuccess { .. }
        )
    }

    pub fn rejected(&self) -> Option<(i64, String)> {
        match self {
            Answer::PartialSuccess { rejected } => {
                Some((*rejected, format!("{rejected} were one too many")))
            }
            _ => None,
        }
    }

    /// As an error of gRPC.
    pub fn grpc(&self) -> Option<tonic::Status> {
        let Answer::Status(http, retry_after) = self else {
            return None;
        };
        let message = format!("the test answers {http}");
        Some(match retry_after {
            Some(wait) => {
                let details = ErrorDetails::with_retry_info(Some(*wait));
                tonic::Status::with_error_details(grpc_code(*http), message, details)
            }
            None => tonic::Status::new(grpc_code(*http), message),
        })
    }
}

pub fn grpc_code(http: u16) -> Code {
    match http {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 => Code::ResourceExhausted,
        502..=504 => Code::Unavailable,
        500 => Code::Internal,
        other => panic!("no code of gRPC stands for {other} in the tests"),
    }
}
