// The REST API, as functions.

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.status === 503) {
    await pause(Number(response.headers.get("Retry-After")) || 5);
    return ask(path, options);
  }
  if (!response.ok) throw new Refusal(response.status, await reason(response));
  return response;
}

async function reason(response) {
  const text = await response.text();
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : detail[0].msg;
  } catch {
    return response.status === 413 ? "The file is larger than this server takes." : text || response.statusText;
  }
}

const json = async (path, options) => (await ask(path, options)).json();

export async function beginSession() {
  return new Session((await json("api/sessions", { method: "POST" })).id);
}

export class Session {
  constructor(id) {
    this.id = id;
    this.path = `api/sessions/${encodeURIComponent(id)}`;
  }

  look = () => json(this.path);

  setClasses(classes) {
    const headers = { "Content-Type": "application/json" };
    return json(`${this.path}/classes`, { method: "PUT", headers, body: JSON.stringify(classes) });
  }

  add(role, file, mask) {
    const body = new FormData();
    body.append("photo", file, file.name);
    if (mask) body.append("mask", mask, "mask.png");
    return json(`${this.path}/${role === "support" ? "supports" : "queries"}`, { method: "POST", body });
  }

  remove = (id) => ask(`${this.path}/photographs/${id}`, { method: "DELETE" });
  draw = (id, png) => json(`${this.path}/photographs/${id}/labels.png`, { method: "PUT", body: png });
  erase = (id) => json(`${this.path}/photographs/${id}/labels.png`, { method: "DELETE" });
  labels = async (id) => (await ask(`${this.path}/photographs/${id}/labels.png`)).blob();
  photo = async (id) => (await ask(`${this.path}/photographs/${id}/photo.jpg`)).blob();
  end = () => ask(this.path, { method: "DELETE" });

  view(id, kind, query) {
    return `${this.path}/photographs/${id}/${kind}.jpg?${new URLSearchParams(query)}`;
  }

  get archive() {
    return `${this.path}/results.zip`;
  }
}
