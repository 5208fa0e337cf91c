"""Prints every event of a stream as a line of JSON, as the package `requests-sse` delivers it: eventsource.py URL"""

import json
import sys

from requests_sse import EventSource

with EventSource(sys.argv[1], timeout=30) as stream:
    for event in stream:
        line = {"event": event.type, "data": event.data, "id": event.last_event_id}
        print(json.dumps(line), flush=True)
