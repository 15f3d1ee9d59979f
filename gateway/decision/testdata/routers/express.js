// Routes calls by Express, and answers with the template that ran. PUT sets the templates of the table in X-Table.
const express = require('express')
const http = require('http')

// pattern is a template in Express's own words.
function pattern (template) {
  const segments = template.split('/').slice(1).map((s, i, all) => {
    if (s === '*' && i === all.length - 1) return '{/*rest}'
    if (s.startsWith('{')) return '/:p' + i
    return '/' + s.replace(/[{}()[\]+?!:*\\]/g, '\\$&')
  })
  return segments.join('')
}

const tables = {}
http.createServer((req, res) => {
  const table = req.headers['x-table']
  if (req.method !== 'PUT') return tables[table](req, res)
  let body = ''
  req.on('data', (chunk) => { body += chunk })
  req.on('end', () => {
    const app = express()
    app.enable('case sensitive routing')
    for (const template of JSON.parse(body)) {
      app.get(pattern(template), (req, res) => res.set('Template', template).end())
    }
    app.use((req, res) => res.status(404).end())
    app.use((err, req, res, next) => res.status(err.status || 500).end())
    tables[table] = app
    res.end()
  })
}).listen(0, '127.0.0.1', function () { console.log(this.address().port) })
