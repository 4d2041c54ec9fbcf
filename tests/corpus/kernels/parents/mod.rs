//! Tasks whose parent has ended.

mod cancels;
mod results;

use crate::program::Kernel;

pub fn all() -> Vec<Kernel> {
    vec![
        results::grpc_660(),
        results::moby_4395(),
        results::moby_33781(),
        cancels::kubernetes_70277(),
        cancels::grpc_862(),
        cancels::cockroach_18101(),
    ]
}
