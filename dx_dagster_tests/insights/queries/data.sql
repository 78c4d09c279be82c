-- Two weeks of a small workspace, in the tables that an import fills: Monday 2 to Sunday 15 November 2026, in UTC.
-- The figures in the other files of this folder are worked out by hand from what stands here.

INSERT INTO bitbucket_workspaces (id, source_id, slug, name) VALUES (md5('acme')::uuid, '{acme}', 'acme', 'Acme');

INSERT INTO bitbucket_repositories (id, source_id, workspace_id, name, slug, default_branch, created_at)
SELECT md5(slug)::uuid, '{' || slug || '}', md5('acme')::uuid, slug, slug, 'main', '2026-10-01Z'
FROM unnest('{web,api}'::text[]) AS slug;

-- Ann has two accounts. The bot is one account of its own.
INSERT INTO bitbucket_users (id, source_id, workspace_id, name, nickname, account_id, active, bot, type)
SELECT md5(who)::uuid, '{' || who || '}', md5('acme')::uuid, initcap(who), who, who, true, who = 'robot',
       CASE who WHEN 'robot' THEN 'bot' ELSE 'human' END
FROM unnest('{ann,ann2,bob,cy,dee,robot}'::text[]) AS who;

-- Engineering > Platform, and Engineering > Product > Web.
INSERT INTO dx_teams (id, source_id, source_parent_id, name, parent, parent_id, contributors) VALUES
    (1, 'Engineering', NULL, 'Engineering', true, NULL, 1),
    (2, 'Engineering/Platform', 'Engineering', 'Platform', false, 1, 1),
    (3, 'Engineering/Product', 'Engineering', 'Product', true, 1, 0),
    (4, 'Engineering/Product/Web', 'Engineering/Product', 'Web', false, 3, 2);
INSERT INTO dx_team_hierarchies (ancestor_id, descendant_id, generations) VALUES
    (1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 4, 0), (1, 2, 1), (1, 3, 1), (3, 4, 1), (1, 4, 2);

INSERT INTO dx_users (id, source_id, team_id, name, email, developer, type) VALUES
    (101, 'ann', 4, 'Ann', 'ann@acme.example', true, 'human'),
    (102, 'bob', 2, 'Bob', 'bob@acme.example', true, 'human'),
    (103, 'cy', 4, 'Cy', 'cy@acme.example', true, 'human'),
    (104, 'dee', 1, 'Dee', 'dee@acme.example', false, 'human'),
    (105, 'robot', NULL, 'Robot', NULL, false, 'bot');
INSERT INTO identities (dx_user_id, source_id, source, reason, by_hand)
SELECT d.id, md5(who)::uuid, 'bitbucket', 'manual', true
FROM unnest('{ann,ann2,bob,cy,dee,robot}'::text[]) AS who JOIN dx_users d ON d.source_id = left(who, 3) OR d.source_id = who;

-- Number, repository, author, title, source branch, state, draft, opened, ready for review, ended, lines added, removed.
CREATE TEMPORARY TABLE pulls (
    number int, repository text, author text, title text, branch text, state text, draft boolean, created timestamptz,
    ready timestamptz, ended timestamptz, additions int, deletions int);
INSERT INTO pulls VALUES
    (1, 'web', 'ann', 'ABC-1 Add search', 'search', 'MERGED', false,
        '2026-11-02 09:00Z', NULL, '2026-11-02 13:00Z', 40, 5),
    (2, 'web', 'cy', 'Add filters', 'feature/ABC-2-filters', 'MERGED', false,
        '2026-11-02 10:00Z', '2026-11-03 08:00Z', '2026-11-04 16:00Z', 150, 50),
    (3, 'api', 'bob', 'Mend the build', 'build', 'MERGED', false,
        '2026-11-04 09:00Z', NULL, '2026-11-04 10:00Z', NULL, NULL),
    (4, 'api', 'ann', 'Page through results', 'pages', 'MERGED', false,
        '2026-11-05 10:00Z', NULL, '2026-11-09 12:00Z', 300, 250),
    (5, 'web', 'robot', 'Bump polars', 'bump-polars', 'MERGED', false,
        '2026-11-06 08:00Z', NULL, '2026-11-06 09:00Z', 2, 2),
    (6, 'web', 'cy', 'ABC-7 Sort results', 'sort', 'OPEN', false, '2026-11-10 09:00Z', NULL, NULL, 10, 0),
    (7, 'api', 'bob', 'Try another cache', 'cache', 'DECLINED', false,
        '2026-11-10 09:00Z', NULL, '2026-11-11 09:00Z', 90, 20),
    (8, 'web', 'ann2', 'Revert "ABC-1 Add search (pull request #1)"', 'revert', 'MERGED', false,
        '2026-11-12 09:00Z', NULL, '2026-11-12 10:00Z', 5, 40),
    (9, 'web', 'cy', 'Search again', 'again', 'OPEN', true, '2026-11-12 11:00Z', NULL, NULL, 30, 0),
    (10, 'api', 'bob', 'Log less', 'logs', 'MERGED', false,
        '2026-11-09 08:00Z', NULL, '2026-11-09 10:00Z', 60, 0);
INSERT INTO bitbucket_pulls (
    id, source_id, repository_id, user_id, merged_by_user_id, title, state, draft, ready_for_review, source_branch,
    target_branch, merge_commit_sha, created_at, updated_at, merged_at, closed_at, first_commit_at, additions, deletions,
    source_url)
SELECT md5('pull ' || number)::uuid, number, md5(repository)::uuid, md5(author)::uuid,
       CASE state WHEN 'MERGED' THEN md5(author)::uuid END, title, state, draft, ready, branch, 'main',
       CASE state WHEN 'MERGED' THEN rpad('feed' || number, 40, '0') END, created, COALESCE(ended, created),
       CASE state WHEN 'MERGED' THEN ended END, ended, NULL, additions, deletions,
       'https://bitbucket.org/acme/' || repository || '/pull-requests/' || number
FROM pulls;

-- Reviews: pull request, who, what, when. Entries of the feed; a comment has a row of its own as well.
CREATE TEMPORARY TABLE acts (pull int, who text, kind text, at timestamptz);
INSERT INTO acts VALUES
    (1, 'bob', 'approval', '2026-11-02 11:00Z'),
    (2, 'bob', 'comment', '2026-11-03 12:00Z'),
    (2, 'bob', 'changes_requested', '2026-11-03 14:00Z'),
    (2, 'ann', 'approval', '2026-11-04 10:00Z'),
    (4, 'robot', 'comment', '2026-11-05 10:05Z'),
    (4, 'cy', 'approval', '2026-11-06 10:00Z'),
    (5, 'ann', 'approval', '2026-11-06 08:30Z'),
    (7, 'ann', 'comment', '2026-11-10 15:00Z'),
    (8, 'bob', 'approval', '2026-11-12 09:30Z'),
    (10, 'cy', 'approval', '2026-11-09 09:00Z');
INSERT INTO bitbucket_pull_activities (id, pull_id, user_id, kind, created_at, comment_source_id)
SELECT md5(pull || who || kind)::uuid, md5('pull ' || pull)::uuid, md5(who)::uuid, kind, at,
       CASE kind WHEN 'comment' THEN pull * 100 END
FROM acts;
INSERT INTO bitbucket_pull_comments (id, source_id, pull_id, user_id, content, created_at, updated_at)
SELECT md5('comment ' || pull)::uuid, pull * 100, md5('pull ' || pull)::uuid, md5(who)::uuid, 'Please look', at, at
FROM acts WHERE kind = 'comment';

-- Commits of pull requests: pull request, author, when.
CREATE TEMPORARY TABLE written (pull int, who text, at timestamptz);
INSERT INTO written VALUES
    (1, 'ann', '2026-11-02 08:00Z'), (1, 'ann', '2026-11-02 08:30Z'), (2, 'cy', '2026-11-02 09:00Z'),
    (3, 'bob', '2026-11-04 08:30Z'), (4, 'ann', '2026-11-05 09:00Z'), (5, 'robot', '2026-11-06 07:50Z'),
    (6, 'cy', '2026-11-10 08:00Z'), (7, 'bob', '2026-11-10 08:00Z'), (8, 'ann2', '2026-11-12 08:50Z'),
    (10, 'bob', '2026-11-09 07:30Z');
INSERT INTO bitbucket_pull_commits (id, sha, author_id, pull_id, created, message)
SELECT md5(pull || at::text)::uuid, md5(pull || at::text) || 'aaaaaaaa', md5(who)::uuid, md5('pull ' || pull)::uuid, at,
       'Work'
FROM written;
UPDATE bitbucket_pulls p SET first_commit_at = (SELECT min(created) FROM bitbucket_pull_commits c WHERE c.pull_id = p.id);

-- The default branches: merge commits in the order of merging. Each deploys what stands at that place, and all before.
INSERT INTO bitbucket_repository_default_branch_commits (id, sha, author_id, repository_id, created, message, parents)
SELECT md5('merge ' || number)::uuid, rpad('feed' || number, 40, '0'), md5(author)::uuid, md5(repository)::uuid, ended,
       'Merged', array_remove(ARRAY[lag(rpad('feed' || number, 40, '0')) OVER (PARTITION BY repository ORDER BY ended)], NULL)
FROM pulls WHERE state = 'MERGED';

INSERT INTO bitbucket_environments (id, source_id, repository_id, name, type, rank)
SELECT md5(repository || name)::uuid, '{' || repository || name || '}', md5(repository)::uuid, name, name, rank
FROM (VALUES ('web', 'Staging', 1), ('web', 'Production', 2), ('api', 'Production', 2)) AS e (repository, name, rank);
INSERT INTO bitbucket_deployments (
    id, source_id, repository_id, environment_id, commit_sha, state, status, started_at, completed_at, updated_at)
SELECT md5('deployment ' || number)::uuid, '{' || number || '}', md5(repository)::uuid, md5(repository || name)::uuid,
       rpad('feed' || pull, 40, '0'), 'COMPLETED', status, at - interval '5 minutes', at, at
FROM (VALUES
    (1, 'web', 'Production', 1, 'SUCCESSFUL', '2026-11-02 15:00Z'::timestamptz),
    (2, 'web', 'Staging', 2, 'SUCCESSFUL', '2026-11-04 17:00Z'),
    (3, 'api', 'Production', 3, 'SUCCESSFUL', '2026-11-04 12:00Z'),
    (4, 'web', 'Production', 5, 'FAILED', '2026-11-06 12:00Z'),
    (5, 'web', 'Production', 5, 'SUCCESSFUL', '2026-11-06 14:00Z'),
    (6, 'api', 'Production', 4, 'SUCCESSFUL', '2026-11-10 12:00Z'),
    (7, 'web', 'Production', 8, 'SUCCESSFUL', '2026-11-12 11:00Z')
) AS d (number, repository, name, pull, status, at);

-- Number, repository, branch, pull request, who, state, stage, result, when, seconds.
INSERT INTO bitbucket_pipelines (
    id, source_id, repository_id, build_number, ref_name, pull_id, user_id, state, stage, result, created_at,
    completed_at, duration)
SELECT md5('run ' || number)::uuid, '{run ' || number || '}', md5(repository)::uuid, number, branch,
       md5('pull ' || pull)::uuid, md5(who)::uuid, state, stage, result, at,
       CASE state WHEN 'COMPLETED' THEN at + seconds * interval '1 second' END, seconds
FROM (VALUES
    (1, 'web', 'main', NULL::int, 'ann', 'COMPLETED', NULL, 'SUCCESSFUL', '2026-11-02 13:05Z'::timestamptz, 300),
    (2, 'web', 'main', NULL, 'cy', 'COMPLETED', NULL, 'FAILED', '2026-11-04 16:05Z', 120),
    (3, 'web', 'main', NULL, NULL, 'COMPLETED', NULL, 'SUCCESSFUL', '2026-11-04 16:30Z', 300),
    (4, 'web', 'feature/ABC-2-filters', 2, 'cy', 'COMPLETED', NULL, 'FAILED', '2026-11-03 09:00Z', 60),
    (5, 'web', 'feature/ABC-2-filters', 2, 'cy', 'COMPLETED', NULL, 'SUCCESSFUL', '2026-11-03 11:00Z', 180),
    (6, 'web', 'main', NULL, NULL, 'IN_PROGRESS', 'PAUSED', NULL, '2026-11-06 09:10Z', 240),
    (7, 'web', 'main', NULL, NULL, 'COMPLETED', NULL, 'STOPPED', '2026-11-06 09:05Z', 30),
    (8, 'api', 'main', NULL, 'bob', 'COMPLETED', NULL, 'SUCCESSFUL', '2026-11-04 10:05Z', 600),
    (9, 'api', 'main', NULL, 'ann', 'COMPLETED', NULL, 'ERROR', '2026-11-09 12:05Z', 10),
    (10, 'api', 'main', NULL, NULL, 'IN_PROGRESS', 'RUNNING', NULL, '2026-11-09 12:10Z', NULL)
) AS r (number, repository, branch, pull, who, state, stage, result, at, seconds);
