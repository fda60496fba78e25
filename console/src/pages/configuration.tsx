// The configuration in force, what its last reload changed, and the certificates.
import { useState } from "preact/hooks";
import { ApiError, get, post } from "../api";
import { count, date, time } from "../format";
import { useLive } from "../live";
import { announce } from "../news";
import { PageHead, type PageProps } from "../page";
import { useResource } from "../resource";
import { ReadOnlyNote, useMayWrite } from "../session";
import { Table } from "../table";
import type { Certificate, Configuration, Problem, Reload } from "../types";
import { Badge, Button, CopyButton, Empty, Loaded, Loading, NotAvailable, Panel, Time, type Tone } from "../ui";

export function ConfigurationPage(_: PageProps) {
  const { status } = useLive();
  const since = status?.configuration.in_force_since ?? "";
  const configuration = useResource(`configuration ${since}`, (signal) => get<Configuration>("/api/configuration", {}, signal));
  const mayWrite = useMayWrite();
  const [failure, setFailure] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);

  const reload = async () => {
    setBusy(true);
    setFailure(null);
    try {
      const { changes, warnings } = await post<{ changes: string[]; warnings: Problem[] }>("/api/reload");
      const changed = changes.length === 0 ? "nothing is different" : changes.length === 1 ? changes[0] : `${count(changes.length)} changes`;
      announce(`Reloaded: ${changed}${warnings.length ? `, ${count(warnings.length)} warnings` : ""}.`);
      configuration.reload();
    } catch (error) {
      setFailure(error);
    }
    setBusy(false);
  };

  return (
    <>
      <PageHead title="Configuration">
        {mayWrite && <Button kind="primary" icon="reload" onClick={reload} busy={busy}>Reload</Button>}
      </PageHead>
      {!mayWrite && <ReadOnlyNote what="reload the configuration" />}
      {failure != null && <ReloadFailure error={failure} />}
      <div class="grid two">
        <Panel title="Last reload" note={status ? <>in force since <Time at={since} /></> : undefined}>
          {status ? <LastReload reload={status.configuration.last_reload} /> : <Loading lines={3} />}
        </Panel>
        <Panel title="Certificates">
          {!status ? <Loading lines={3} /> : status.certificates
            ? <Certificates certificates={status.certificates} />
            : <NotAvailable what="The list of certificates" />}
        </Panel>
      </div>
      {Boolean(configuration.data?.warnings.length) && (
        <Panel title="Warnings" note="legal, but perhaps not meant"><Problems kind="warning" problems={configuration.data!.warnings} /></Panel>
      )}
      <Panel
        title="Text"
        note={status && <span class="code break">{status.configuration.file}</span>}
        actions={configuration.data && <CopyButton text={configuration.data.text} />}
      >
        <Loaded resource={configuration} what="The text of the configuration" lines={12}>
          {({ text }) => <Yaml text={text} />}
        </Loaded>
      </Panel>
    </>
  );
}

function ReloadFailure({ error }: { error: unknown }) {
  const problems = error instanceof ApiError
    ? Object.entries(error.fields).flatMap(([place, texts]) => [texts].flat().map((text) => ({ place, text: String(text) })))
    : [];
  return (
    <section class="well bad" role="alert">
      <h2>Not reloaded: the configuration before stays in force</h2>
      <p>{error instanceof Error ? error.message : "That did not work."}</p>
      <ul>{problems.map(({ place, text }) => <li key={place + text}><span class="code">{place}</span> {text}</li>)}</ul>
    </section>
  );
}

function LastReload({ reload }: { reload: Reload | null }) {
  if (!reload) return <Empty title="Not reloaded since the start" icon="configuration" />;
  return (
    <div class="panel-body">
      <p>
        {reload.successful ? <Badge tone="good">successful</Badge> : <Badge tone="bad">failed</Badge>} <Time at={reload.at} />
      </p>
      {reload.changes && (reload.changes.length > 0
        ? <ul class="changes">{reload.changes.map((change) => <li key={change}>{change}</li>)}</ul>
        : <p class="muted">Nothing was different.</p>)}
      {reload.errors && <Problems kind="error" problems={reload.errors} />}
      {reload.warnings && reload.warnings.length > 0 && <Problems kind="warning" problems={reload.warnings} />}
    </div>
  );
}

function Problems({ kind, problems }: { kind: "error" | "warning"; problems: Problem[] }) {
  return (
    <ul class="problems">
      {problems.map((problem) => (
        <li key={`${problem.line} ${problem.column} ${problem.message}`}>
          <span class="code muted break">{problem.file}{problem.line > 0 && `:${problem.line}:${problem.column}`} {problem.path}</span>
          <span><Badge tone={kind === "error" ? "bad" : "warning"}>{kind}</Badge> {problem.message}</span>
        </li>
      ))}
    </ul>
  );
}

function Certificates({ certificates }: { certificates: Certificate[] }) {
  const tone = (days: number): Tone => (days < 0 ? "bad" : days <= 14 ? "warning" : "good");
  const name = (days: number) => (days < 0 ? "expired" : days === 1 ? "1 day" : `${count(days)} days`);
  return (
    <Table
      caption="Certificates and when they expire"
      rows={certificates}
      rowKey={(certificate) => certificate.file}
      empty={<Empty title="There are no certificates" />}
      columns={[
        { head: "Names", class: "main-cell", cell: (one) => <><span class="break">{one.names.join(", ") || "no names"}</span><span class="code muted cut" title={one.file}>{one.file}</span></> },
        { head: "Left", cell: (one) => <Badge tone={tone(one.days_left)}>{name(one.days_left)}</Badge> },
        { head: "Expires", cell: (one) => <time class="nowrap" dateTime={one.expires_at} title={time(one.expires_at)}>{date(one.expires_at)}</time> },
      ]}
    />
  );
}

/** YAML with numbered lines; keys are coloured, comments paler. */
function Yaml({ text }: { text: string }) {
  const lines = text.replace(/\n$/, "").split("\n");
  return (
    <div class="yaml" role="region" aria-label="The text of the configuration" tabIndex={0}>
      <ol>
        {lines.map((line, index) => {
          const comment = line.search(/(^|\s)#/);
          const code = comment < 0 ? line : line.slice(0, comment);
          const [, before, key, rest] = /^(\s*(?:- )?(?:\{ )?)([^\s:#"'-][^:"']*(?=:))?(.*)$/.exec(code)!;
          return (
            <li key={index}>
              <code>
                {before}{key && <b>{key}</b>}{rest}{comment >= 0 && <i>{line.slice(comment)}</i>}{"\n"}
              </code>
            </li>
          );
        })}
      </ol>
    </div>
  );
}
