// The REST API, as functions.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function request(path, options = {}) {
  const response = await fetch(path, options);
  if (response.status === 503) {
    await pause(Number(response.headers.get("Retry-After")) || 5);
    return request(path, options);
  }
  if (!response.ok) throw new ApiError(response.status, await reason(response));
  return response;
}

async function reason(response) {
  const text = await response.text();
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : detail[0].msg;
  } catch {
    return response.status === 413 ? "The file is larger than the upload limit of this server." : text || response.statusText;
  }
}

const json = async (path, options) => (await request(path, options)).json();

export async function beginSession() {
  return new Session((await json("api/sessions", { method: "POST" })).id);
}

export class Session {
  constructor(id) {
    this.id = id;
    this.path = `api/sessions/${encodeURIComponent(id)}`;
  }

  state = () => json(this.path);

  setClasses(classes) {
    const headers = { "Content-Type": "application/json" };
    return json(`${this.path}/classes`, { method: "PUT", headers, body: JSON.stringify(classes) });
  }

  add(role, file, mask) {
    const body = new FormData();
    body.append("image", file, file.name);
    if (mask) body.append("mask", mask, "mask.png");
    return json(`${this.path}/${role === "support" ? "supports" : "queries"}`, { method: "POST", body });
  }

  remove = (id) => request(`${this.path}/images/${id}`, { method: "DELETE" });
  setLabels = (id, png) => json(`${this.path}/images/${id}/labels.png`, { method: "PUT", body: png });
  deleteLabels = (id) => json(`${this.path}/images/${id}/labels.png`, { method: "DELETE" });
  labels = async (id) => (await request(`${this.path}/images/${id}/labels.png`)).blob();
  image = async (id) => (await request(`${this.path}/images/${id}/image.jpg`)).blob();
  end = () => request(this.path, { method: "DELETE" });

  view(id, name, query) {
    return `${this.path}/images/${id}/${name}.jpg?${new URLSearchParams(query)}`;
  }

  get archive() {
    return `${this.path}/results.zip`;
  }
}
