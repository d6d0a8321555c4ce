// A proxy that cuts connections of paid requests.
import { createServer } from "node:http";

const places = ["before the gateway", "before the header", "in the body", "nowhere"];

/** Starts a proxy to an origin. Paid requests are cut in turn at each of the places, so that each is repeated up to three times. */
export async function startCutter(origin) {
  let turn = 0;
  const cuts = {};
  const serve = async (q, r) => {
    const paid = q.headers["payment-signature"] !== undefined;
    const place = paid ? places[turn++ % places.length] : "nowhere";
    cuts[place] = (cuts[place] ?? 0) + 1;
    if (place === "before the gateway") return q.socket.destroy();
    const { host: _host, connection: _connection, ...headers } = q.headers;
    const answer = await fetch(origin + q.url, { method: q.method, headers });
    const body = Buffer.from(await answer.arrayBuffer());
    if (place === "before the header") return q.socket.destroy();
    const copied = [...answer.headers].filter(([name]) => !["connection", "keep-alive", "transfer-encoding"].includes(name));
    r.writeHead(answer.status, copied);
    if (place === "in the body") return r.write(body.subarray(0, body.length >> 1), () => q.socket.destroy());
    return r.end(q.method === "HEAD" ? undefined : body);
  };
  const server = createServer((q, r) => void serve(q, r).catch(() => q.socket.destroy()));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    cuts,
    stop: () => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve))),
  };
}
