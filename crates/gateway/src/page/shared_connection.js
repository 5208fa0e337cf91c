// One stream for all tabs of a browser that have the same filter: browsers open at most six connections to an HTTP/1.1
// server. One tab holds the stream and passes the events on. A Web Lock decides which tab; the next one in line gets the
// lock when that tab closes.
//
// Must never happen here: two holders of one stream, a lock that a tab keeps after it left.

/** Whether tabs of this browser can share: locks are available on https and on localhost only. */
export function canShare() {
  return "locks" in navigator && "BroadcastChannel" in self;
}

/** Joins the tabs that want this stream. `onLead` is called when this tab becomes the holder, `onMessage` with every
    message of another tab. */
export function joinStream(address, { onLead, onMessage }) {
  const name = `newswire stream ${address}`;
  const channel = new BroadcastChannel(name);
  const waiting = new AbortController();
  let left = false;
  let release = () => {};
  const granted = () => {
    if (left) return undefined;
    onLead();
    return new Promise((done) => {
      release = done;
    });
  };
  // Rejected only if this tab leaves before it gets the lock.
  navigator.locks.request(name, { signal: waiting.signal }, granted).catch(() => {});
  channel.onmessage = ({ data }) => onMessage(data);
  return {
    send: (message) => channel.postMessage(message),

    /** How many tabs share the stream: one has the lock, the others wait for it. */
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
