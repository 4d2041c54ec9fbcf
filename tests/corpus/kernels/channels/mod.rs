//! Tasks that wait for a channel, alone or under a lock.

mod actors;
mod locked;
mod starts;
pub mod unbuffered;

use crate::program::Kernel;

pub fn all() -> Vec<Kernel> {
    vec![
        actors::etcd_6857(),
        actors::cockroach_2448(),
        starts::cockroach_24808(),
        starts::cockroach_35073(),
        starts::cockroach_25456(),
        starts::moby_25384(),
        locked::etcd_7492(),
        locked::etcd_7902(),
        locked::grpc_1460(),
    ]
}
