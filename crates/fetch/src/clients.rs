//! The HTTP clients that all visits share: one for every source that asks as usual, and one for each of the few
//! other ways (a proxy, other certificate authorities). No client belongs to a source.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use reqwest::Client;

use crate::{BadPolicy, Policy, exchange, request_options::Way};

/// Most clients besides the usual one; the one that was not used for longest makes room, and is built again when it
/// is wanted.
const OTHERS_MAX: usize = 32;

/// The clients, for all threads.
#[derive(Clone)]
pub(crate) struct Clients {
    usual: Client,
    /// Used last stands last.
    others: Arc<Mutex<Vec<(Way, Client)>>>,
    displaced: Arc<AtomicU64>,
}

impl Clients {
    pub(crate) fn try_new(policy: &Policy) -> Result<Self, BadPolicy> {
        let usual = exchange::client(policy, &Way::default())?;
        Ok(Self { usual, others: Arc::default(), displaced: Arc::default() })
    }

    /// The client that asks as the policy says.
    pub(crate) fn usual(&self) -> &Client {
        &self.usual
    }

    /// The client for a way.
    pub(crate) fn get(&self, policy: &Policy, way: &Way) -> Result<Client, BadPolicy> {
        if *way == Way::default() {
            return Ok(self.usual.clone());
        }
        // A panic between two of these lines leaves a list that is still one.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let known = others.iter().position(|(other, _)| other == way).map(|at| others.remove(at));
        let (way, client) = match known {
            Some(known) => known,
            None => (way.clone(), exchange::client(policy, way)?),
        };
        if others.len() == OTHERS_MAX {
            others.remove(0);
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        others.push((way, client.clone()));
        Ok(client)
    }

    /// Clients that had to make room.
    pub(crate) fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_ask_alike_share_a_client_and_the_number_of_clients_is_bounded() {
        let policy = Policy::default();
        let clients = Clients::try_new(&policy).unwrap();
        let way = |n: usize| Way {
            proxy: Some(news::FeedUrl::try_new(&format!("http://proxy-{n}.example:3128")).unwrap()),
            authorities_pem: None,
        };
        for n in 0..OTHERS_MAX + 3 {
            for _ in 0..2 {
                clients.get(&policy, &Way::default()).unwrap();
                clients.get(&policy, &way(n)).unwrap();
            }
        }
        assert_eq!(clients.others.lock().unwrap().len(), OTHERS_MAX);
        assert_eq!(clients.displaced(), 3);
    }
}
