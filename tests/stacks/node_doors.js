// Doors of Node's https. usage: node node_doors.js FOLDER
"use strict";
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");

const file = (name) => fs.readFileSync(path.join(process.argv[2], name));
const answer = file("answer.xml");

function listen(version) {
  const options = {
    key: file("server.key"),
    cert: file("server.pem"),
    ca: file("clients.pem"),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: version,
    maxVersion: version,
  };
  const server = https.createServer(options, (request, response) => {
    request.resume();
    request.on("end", () => {
      response.writeHead(500, { "Content-Type": "text/xml", "Content-Length": answer.length });
      response.end(answer);
    });
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      console.log(`https ${version} ${server.address().port}`);
      resolve();
    });
  });
}

Promise.all(["TLSv1.2", "TLSv1.3"].map(listen)).then(() => console.log("ready"));
