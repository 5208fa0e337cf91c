// Prints every event of a stream as a line of JSON, as the package `eventsource` delivers it:
// node eventsource.mjs FOLDER_OF_PACKAGES URL

import { createRequire } from "node:module";

const [, , packages, url] = process.argv;
const { EventSource } = createRequire(`${packages}/`)("eventsource");

const stream = new EventSource(url);
for (const name of ["stream", "item", "update", "source", "refresh", "gap", "message"]) {
  stream.addEventListener(name, ({ type, data, lastEventId }) => {
    console.log(JSON.stringify({ event: type, data, id: lastEventId }));
  });
}
stream.addEventListener("error", ({ code, message }) => console.error(code, message));
