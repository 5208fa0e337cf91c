// One stream for all tabs of a browser that want the same: browsers grant an HTTP/1.1 server six connections in all.
// One tab holds the stream and passes on what comes. A Web Lock says which one; the next in line has it when it goes.
//
// Must never happen here: two holders of one address, a lock that outlives its tab's interest.

/** Whether this browser lets tabs agree: locks are there on https and on loopback only. */
export function canShare() {
  return "locks" in navigator && "BroadcastChannel" in self;
}

/** Joins the tabs that want this address. `lead` is called when it is this tab's turn to hold the stream, `hear` with
    every message of another tab. */
export function share(address, { lead, hear }) {
  const name = `newswire ${address}`;
  const channel = new BroadcastChannel(name);
  const waiting = new AbortController();
  let left = false;
  let release = () => {};
  const granted = () => {
    if (left) return undefined;
    lead();
    return new Promise((done) => {
      release = done;
    });
  };
  // Rejected only when this tab leaves before its turn.
  navigator.locks.request(name, { signal: waiting.signal }, granted).catch(() => {});
  channel.onmessage = ({ data }) => hear(data);
  return {
    tell: (message) => channel.postMessage(message),

    /** How many tabs share: one holds the lock, the others wait for it. */
    async count() {
      const { held, pending } = await navigator.locks.query();
      return [...held, ...pending].filter((lock) => lock.name === name).length;
    },

    leave() {
      left = true;
      waiting.abort();
      release();
      channel.close();
    },
  };
}
