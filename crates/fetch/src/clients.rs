//! The HTTP clients that all visits share: one for the default connection profile, and one for each other profile (a
//! proxy, other certificate authorities). No client belongs to a source.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    BadPolicy, Policy,
    connection::{ConnectionProfile, HttpClient},
};

/// Maximum number of clients besides the default one. The least recently used is evicted, and built again on demand.
const OTHERS_MAX: usize = 32;

/// The clients, for all threads.
#[derive(Clone)]
pub(crate) struct ClientCache {
    default: HttpClient,
    /// The most recently used is last.
    others: Arc<Mutex<Vec<(ConnectionProfile, HttpClient)>>>,
    evicted: Arc<AtomicU64>,
}

impl ClientCache {
    pub(crate) fn try_new(policy: &Policy) -> Result<Self, BadPolicy> {
        let default = HttpClient::try_new(policy, &ConnectionProfile::default())?;
        Ok(Self { default, others: Arc::default(), evicted: Arc::default() })
    }

    /// The client for a profile.
    pub(crate) fn get(&self, policy: &Policy, profile: &ConnectionProfile) -> Result<HttpClient, BadPolicy> {
        if profile.is_default(policy) {
            return Ok(self.default.clone());
        }
        // The list is consistent after a panic at any line below.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let known = others.iter().position(|(other, _)| other == profile).map(|at| others.remove(at));
        let (profile, client) = match known {
            Some(known) => known,
            None => (profile.clone(), HttpClient::try_new(policy, profile)?),
        };
        if others.len() == OTHERS_MAX {
            others.remove(0);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        others.push((profile, client.clone()));
        Ok(client)
    }

    /// Number of evicted clients.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use news::ProxyChoice;

    use super::*;

    #[test]
    fn sources_with_one_profile_share_a_client_and_the_number_of_clients_is_bounded() {
        let policy = Policy::default();
        let clients = ClientCache::try_new(&policy).unwrap();
        let profile = |n: usize| ConnectionProfile {
            proxy: Some(ProxyChoice::parse(&format!("http://proxy-{n}.example:3128")).unwrap()),
            authorities_pem: None,
        };
        for n in 0..OTHERS_MAX + 3 {
            for _ in 0..2 {
                clients.get(&policy, &ConnectionProfile::default()).unwrap();
                clients.get(&policy, &profile(n)).unwrap();
            }
        }
        assert_eq!(clients.others.lock().unwrap().len(), OTHERS_MAX);
        assert_eq!(clients.evicted(), 3);
    }
}
