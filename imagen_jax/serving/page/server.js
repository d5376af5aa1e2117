// What the page asks of the server.

async function sent(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.status === 401) location.assign("/");
  let told = {};
  try {
    told = await response.json();
  } catch {
    // No JSON: the status says enough.
  }
  if (!response.ok) {
    throw new Error(told.error || `The server answered ${response.status}.`);
  }
  return told;
}

function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return sent(path, { method: "POST", headers, body: JSON.stringify(body) });
}

export const model = () => sent("/api/model");
export const ask = (asked) => post("/api/drawings", asked);
export const look = (id) => sent(`/api/drawings/${id}`);
export const cancel = (id) => post(`/api/drawings/${id}/cancel`, {});
export const picture = (id, stage, place) => `/api/drawings/${id}/${stage}/${place}.png`;

// One stream for all drawings that have not ended; opened anew when one joins.
export class Watch {
  constructor(told, lost) {
    this.told = told;
    this.lost = lost;
    this.ids = new Set();
    this.source = null;
  }

  add(id) {
    this.ids.add(id);
    this.#open();
  }

  #open() {
    this.source?.close();
    this.source = null;
    if (!this.ids.size) return;
    const query = [...this.ids].map((id) => `drawing=${id}`).join("&");
    const source = new EventSource(`/api/events?${query}`);
    source.onmessage = (event) => this.#heard(source, JSON.parse(event.data));
    source.onerror = () => {
      if (source !== this.source) return;
      this.lost();
      // The browser gives up on answers that are no stream; we do not.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(() => source === this.source && this.#open(), 2000);
      }
    };
    this.source = source;
  }

  #heard(source, told) {
    if (source !== this.source) return;
    if (!["waiting", "drawing"].includes(told.state)) this.ids.delete(told.drawing);
    if (!this.ids.size) {
      source.close();
      this.source = null;
    }
    this.told(told);
  }
}
