// The tracker inside aedes, a broker in Node: the table is a Map, nothing is kept on disk.
// Run with NODE_PATH or from a folder whose node_modules has aedes. Arguments: none; the
// ports are chosen and printed. stdin: a JSON line {"do":"run",...} drives it in process.
import http from 'node:http'
import net from 'node:net'
import { randomUUID } from 'node:crypto'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const require = createRequire(process.argv[2] + '/')
const { Aedes } = require('aedes')

const ROOT = '$emqx/commands'
const executions = new Map()
const broker = Aedes.createBroker ? await Aedes.createBroker() : new Aedes()
let load = null

const tell = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')

function send (thingId, action, params, ttl) {
  const executionId = randomUUID()
  const now = Date.now()
  const execution = {
    executionId, commandId: randomUUID(), thingId, action, params, ttl, createdAt: now / 1000, status: 'SENT'
  }
  executions.set(executionId, execution)
  broker.publish({
    topic: `${ROOT}/things/${thingId}/executions/${executionId}/request`,
    payload: JSON.stringify({
      commandId: execution.commandId, action, params, timestamp: Math.floor(now / 1000), ttl
    }),
    qos: 1,
    retain: false
  }, () => {})
  return execution
}

// aedes delivers no $ topic to a wildcard subscription: the hook sees every publish.
broker.on('publish', (packet, client) => {
  if (!client || !packet.topic.startsWith(ROOT)) return
  const levels = packet.topic.split('/')
  if (levels[6] !== 'response') return
  const execution = executions.get(levels[5])
  if (!execution || execution.thingId !== levels[3]) return
  const response = JSON.parse(packet.payload)
  execution.status = response.status
  execution.result = response.result
  if (load) load.ended(execution)
})

function answer (response, status, body) {
  const text = JSON.stringify(body)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
  response.end(text)
}

const api = http.createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/api/v1/commands') {
    let text = ''
    request.setEncoding('utf8')
    request.on('data', chunk => { text += chunk })
    request.on('end', () => {
      const { thingId, action, params = {}, ttl = 60 } = JSON.parse(text)
      answer(response, 201, send(thingId, action, params, ttl))
    })
  } else {
    const execution = executions.get(request.url.split('/')[4])
    if (execution) answer(response, 200, execution)
    else answer(response, 404, { title: 'Not Found' })
  }
})

const quantile = (sorted, q) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]

function run ({ things, window, warmup, seconds }) {
  const open = new Map()
  const ended = {}
  let took = []
  let turn = 0
  let sent = 0
  let refilling = true
  let drained = () => {}
  const one = () => {
    sent++
    const at = process.hrtime.bigint()
    const name = 'thing-' + String(turn++ % things).padStart(5, '0')
    open.set(send(name, 'setTemperature', { value: 24 }, 60).executionId, at)
  }
  load = {
    ended ({ executionId, status }) {
      const at = open.get(executionId)
      if (at === undefined) return
      open.delete(executionId)
      took.push(Number(process.hrtime.bigint() - at) / 1e6)
      ended[status] = (ended[status] || 0) + 1
      if (refilling) setImmediate(() => { if (refilling) one() })
      else if (!open.size) drained()
    }
  }
  for (let i = 0; i < window; i++) one()
  setTimeout(() => {
    took = []
    const cpu = process.cpuUsage()
    const began = process.hrtime.bigint()
    setTimeout(() => {
      const passed = Number(process.hrtime.bigint() - began) / 1e9
      const used = process.cpuUsage(cpu)
      const measured = took.slice().sort((a, b) => a - b)
      refilling = false
      let finished = false
      drained = () => {
        if (finished) return
        finished = true
        load = null
        tell('result', {
          executions: measured.length,
          seconds: passed,
          per_second: measured.length / passed,
          sent,
          ended,
          lost: open.size,
          cpu_us_per_execution: (used.user + used.system) / measured.length,
          server_busy: (used.user + used.system) / 1e6 / passed,
          latency_ms: measured.length
            ? {
                p50: quantile(measured, 0.5),
                p99: quantile(measured, 0.99),
                'p99.9': quantile(measured, 0.999),
                max: measured[measured.length - 1]
              }
            : {}
        })
      }
      if (open.size) setTimeout(drained, 15000).unref()
      else drained()
    }, seconds * 1000)
  }, warmup * 1000)
}

const mqtt = net.createServer(socket => { socket.setNoDelay(true); broker.handle(socket) })
mqtt.listen(0, '127.0.0.1', 4096, () => {
  api.listen(0, '127.0.0.1', 4096, () => tell('ready', { mqtt: mqtt.address().port, http: api.address().port }))
})
const orders = createInterface({ input: process.stdin })
orders.on('line', line => {
  const order = JSON.parse(line)
  if (order.do === 'run') run(order)
})
orders.on('close', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
