import { useState } from "preact/hooks";
import { api, ApiError } from "../api";
import { dateTime } from "../format";
import { useLoad } from "../load";
import { useLive } from "../live";
import { Changes } from "../role";
import type { Certificate, Configuration, ConfigurationProblem, LastReload, Status } from "../types";
import { Badge, Card, Empty, Page, Show, Table, When } from "../ui";

export function ConfigurationPage() {
  const configuration = useLoad<Configuration>("/api/configuration");
  const { status } = useLive();
  const [said, say] = useState<{ text: string; bad: boolean } | null>(null);
  const [busy, setBusy] = useState(false);
  async function reload() {
    setBusy(true);
    try {
      const { changes } = await api<{ changes: string[] }>("POST", "/api/reload");
      say({ text: changes.length ? `Reloaded: ${changes.join("; ")}.` : "Reloaded: nothing has changed.", bad: false });
    } catch (problem) {
      say({ text: (problem as ApiError).message, bad: true });
    }
    setBusy(false);
    configuration.reload();
  }
  return (
    <Page
      title="Configuration"
      actions={
        <Changes>
          <button class="main" disabled={busy} onClick={() => void reload()}>{busy ? "Reloading…" : "Reload"}</button>
        </Changes>
      }
    >
      <p class={said?.bad ? "fault" : "stale"} role="status" hidden={!said}>{said?.text}</p>
      <div class="grid">
        <Card title="Last reload">
          {status ? <Reload last={status.configuration.last_reload} /> : <p class="loading">Loading…</p>}
        </Card>
        <Card title="Warnings" note="legal, but unwise">
          <Show of={configuration}>{(data) => (data.warnings.length ? <Problems problems={data.warnings} /> : <Empty title="No warnings" />)}</Show>
        </Card>
        <Card title="Certificates" wide>
          {status?.certificates?.length ? <Certificates of={status} /> : <Empty title="No certificates" />}
        </Card>
        <Card title="File" note={configuration.data && <code>{configuration.data.file}</code>} wide>
          <Show of={configuration}>
            {(data) => (
              <>
                <p class="note">In force since {dateTime(data.in_force_since)}. Secrets are left out.</p>
                <pre tabIndex={0} role="region" aria-label="Configuration file">{data.text}</pre>
              </>
            )}
          </Show>
        </Card>
      </div>
    </Page>
  );
}

function Reload({ last }: { last: LastReload | null }) {
  if (!last) return <Empty title="Not reloaded since the start" />;
  return (
    <>
      <p>
        {last.successful ? <Badge tone="good">done</Badge> : <Badge tone="bad">failed</Badge>} <When at={last.at} />
        {!last.successful && " The configuration before it is still in force."}
      </p>
      {last.successful &&
        (last.changes?.length ? (
          <ul class="lines">{last.changes.map((change) => <li>{change}</li>)}</ul>
        ) : (
          <p class="quiet">Nothing had changed.</p>
        ))}
      {last.errors && <Problems problems={last.errors} />}
      {last.warnings && last.warnings.length > 0 && <Problems problems={last.warnings} />}
    </>
  );
}

function Problems({ problems }: { problems: ConfigurationProblem[] }) {
  return (
    <ul class="lines">
      {problems.map((problem) => (
        <li>
          <code>{problem.file}{problem.line ? `:${problem.line}` : ""}</code> {problem.path && <b>{problem.path}</b>} {problem.message}
        </li>
      ))}
    </ul>
  );
}

function Certificates({ of }: { of: Status }) {
  const tone = (certificate: Certificate) => (certificate.days_left < 2 ? "bad" : certificate.days_left < 14 ? "warn" : "good");
  return (
    <Table
      caption="Certificates"
      rows={of.certificates}
      id={(certificate) => certificate.file}
      columns={[
        { name: "File", cell: (certificate) => <code>{certificate.file}</code> },
        { name: "Names", cell: (certificate) => certificate.names.join(", ") || "–" },
        { name: "Ends", cell: (certificate) => dateTime(certificate.expires_at) },
        { name: "Days left", numeric: true, cell: (certificate) => <Badge tone={tone(certificate)}>{certificate.days_left}</Badge> },
      ]}
    />
  );
}
