// Sends, adds and lists with the generated types. TypeScript's strict mode checks every line.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { env: Record<"URL" | "TOKEN", string> };

const client = createClient<paths>({
  baseUrl: process.env.URL,
  headers: { Authorization: `Bearer ${process.env.TOKEN}` },
});

const withParams = await client.POST("/api/v1/commands", {
  body: { thingId: "lamp", action: "set", params: { value: 24 } },
});
const plain = await client.POST("/api/v1/commands", { body: { thingId: "lamp", action: "turnOn" } });
const added = await client.POST("/api/v1/things", { body: { name: "added" } });
const changed = await client.PATCH("/api/v1/things/{name}", {
  params: { path: { name: "added" } },
  body: { description: "by a generated client" },
});
const renewed = await client.POST("/api/v1/things/{name}/password", { params: { path: { name: "added" } } });
const type = await client.PUT("/api/v1/thing-types/{name}", {
  params: { path: { name: "lamp" } },
  body: { actions: [{ name: "set", paramsSchema: { type: "object" }, policy: { maxConcurrent: 1 } }] },
});
const things = await client.GET("/api/v1/things", { params: { query: { limit: 10 } } });
const executions = await client.GET("/api/v1/commands", { params: { query: { status: ["SENT"], tag: [] } } });
const refused = await client.POST("/api/v1/commands", { body: { thingId: "lamp", action: "?" } });

const problem: components["schemas"]["ProblemDetails"] | undefined = refused.error;
const password: string | undefined = added.data?.credentials?.password;
console.log(
  JSON.stringify({
    statuses: [withParams, plain, added, changed, renewed, type].map((reply) => reply.response.status),
    params: withParams.data && "params" in withParams.data ? withParams.data.params : undefined,
    hasPassword: password !== undefined,
    description: changed.data?.description,
    things: things.data?.things.map((thing) => thing.name),
    actions: executions.data?.executions.map((execution) => execution.action),
    pointer: problem?.pointer,
  }),
);
