"use strict";
// A Storage SCP on dcmjs-dimse that writes each data set as the bytes it received.
//
//     NODE_PATH=<where dcmjs-dimse is> node dcmjs_scp.js <port> <directory>
//
// <directory>/<SOP Instance UID> appears, whole, before C-STORE is answered with success.

const fs = require("fs");
const path = require("path");
const { Writable } = require("stream");
const dimse = require("dcmjs-dimse");

const { PresentationContextResult, Status } = dimse.constants;
const { CEchoResponse, CStoreResponse } = dimse.responses;
const [port, directory] = process.argv.slice(2);

class Bytes extends Writable {
  constructor() {
    super();
    this.parts = [];
  }

  _write(part, _encoding, done) {
    this.parts.push(Buffer.from(part));
    done();
  }
}

class Archive extends dimse.Scp {
  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const [syntax] = context.getTransferSyntaxUids();
      context.setResult(PresentationContextResult.Accept, syntax);
    }
    this.sendAssociationAccept();
  }

  createStoreWritableStream() {
    this.bytes = new Bytes();
    return this.bytes;
  }

  createDatasetFromStoreWritableStream(_writable, context, callback) {
    callback(new dimse.Dataset({}, context.getAcceptedTransferSyntaxUid()));
  }

  cStoreRequest(request, callback) {
    const uid = request.getAffectedSopInstanceUid().replace(/[^0-9.]/g, "");
    fs.writeFileSync(path.join(directory, uid), Buffer.concat(this.bytes.parts));
    const response = CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  cEchoRequest(request, callback) {
    const response = CEchoResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

const server = new dimse.Server(Archive);
server.on("networkError", (error) => console.error("network error", error.code));
server.listen(Number(port));
